package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// documents returns the documents of a YAML file.
func documents(t *testing.T, name string) (docs []map[string]any) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc map[string]any
		err := dec.Decode(&doc)
		if err == io.EOF {
			return docs
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		docs = append(docs, doc)
	}
}

// at returns what is in a document at a path of keys and indexes, nil if there is nothing.
func at(doc any, path ...any) any {
	for _, step := range path {
		switch k := step.(type) {
		case string:
			m, _ := doc.(map[string]any)
			doc = m[k]
		case int:
			l, _ := doc.([]any)
			if k >= len(l) {
				return nil
			}
			doc = l[k]
		}
	}
	return doc
}

// TestCI checks that the files for CI systems parse, that the steps are where those look for them, and that modfs takes the command
// lines.
func TestCI(t *testing.T) {
	github := documents(t, "../deploy/ci/github-actions.yml")[0]
	steps, _ := at(github, "jobs", "test", "steps").([]any)
	if len(steps) == 0 || at(github, "on") == nil || at(github, "jobs", "test", "runs-on") == nil {
		t.Errorf("not a workflow: %v", github)
	}
	gitlab := documents(t, "../deploy/ci/gitlab-ci.yml")[0]
	for _, job := range []string{"test", "modules", "build"} {
		if script, _ := at(gitlab, job, "script").([]any); len(script) == 0 || at(gitlab, job, "extends") != ".modfs" {
			t.Errorf("job %s: %v", job, gitlab[job])
		}
	}
	if at(gitlab, ".modfs", "cache", "paths") == nil {
		t.Error("GitLab caches nothing")
	}
	line := regexp.MustCompile(`(?m)^ *(?:- |run: |- run: )(modfs .*)$`)
	for _, name := range []string{"github-actions.yml", "gitlab-ci.yml"} {
		data, err := os.ReadFile("../deploy/ci/" + name)
		if err != nil {
			t.Fatal(err)
		}
		found := line.FindAllStringSubmatch(string(data), -1)
		if len(found) == 0 {
			t.Errorf("%s does not use modfs", name)
		}
		for _, m := range found {
			before, _, _ := strings.Cut(m[1], " -- ")
			takes(t, strings.Fields(before))
		}
	}
}

// takes checks that modfs knows all flags of a command line.
func takes(t *testing.T, args []string) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, "modfs"), append(slices.Clone(args[1:]), "--help")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: %v\n%s", args, err, out)
	}
}

// words are the strings of a list.
func words(list any) (all []string) {
	items, _ := list.([]any)
	for _, w := range items {
		all = append(all, fmt.Sprint(w))
	}
	return all
}

// TestKubernetes checks what the mounts of the pods depend on, and that modfs takes the command line. That the files are right in all
// else is checked against the types of the API when they are changed; see docs/kubernetes.md.
func TestKubernetes(t *testing.T) {
	var set map[string]any
	for _, doc := range documents(t, "../deploy/kubernetes/modfs.yaml") {
		if doc["kind"] == "DaemonSet" {
			set = doc
		}
	}
	pod := at(set, "spec", "template", "spec")
	daemon := at(pod, "containers", 0)
	args := append(words(at(daemon, "command")), words(at(daemon, "args"))...)
	if len(args) < 3 || args[0] != "modfs" || args[1] != "mount" {
		t.Fatalf("it runs %q", args)
	}
	takes(t, args)
	for _, flag := range []string{"--read-only", "--allow-other"} {
		if !slices.Contains(args, flag) {
			t.Errorf("no %s in %q", flag, args)
		}
	}
	if labels, selects := at(set, "spec", "template", "metadata", "labels"), at(set, "spec", "selector", "matchLabels"); fmt.Sprint(labels) != fmt.Sprint(selects) {
		t.Errorf("it selects %v, and its pods are %v", selects, labels)
	}
	// Bidirectional is refused without, and --grace has to fit in twice.
	if at(daemon, "securityContext", "privileged") != true {
		t.Error("not privileged")
	}
	if n, _ := at(pod, "terminationGracePeriodSeconds").(int); n < 61 {
		t.Errorf("%d seconds to end", n)
	}
	mountpoint := args[len(args)-1]
	parent, err := hostDir(pod, daemon, mountpoint, "Bidirectional")
	if err != nil {
		t.Errorf("the daemon: %v", err)
	}
	consumer := documents(t, "../deploy/kubernetes/consumer.yaml")[0]
	for _, list := range []string{"initContainers", "containers"} {
		got, err := hostDir(at(consumer, "spec"), at(consumer, "spec", list, 0), "/go/pkg/mod", "HostToContainer")
		if err != nil || got != parent {
			t.Errorf("%s: the module cache is in the node's %q, %v; want %q", list, got, err, parent)
		}
	}
	if filepath.Base(mountpoint) != "mod" {
		t.Errorf("consumers look for mod, not %s", mountpoint)
	}
}

// hostDir returns the directory of the node that a container has the parent of a mountpoint from, with that propagation.
func hostDir(pod, container any, mountpoint, propagation string) (string, error) {
	mounts, _ := at(container, "volumeMounts").([]any)
	for _, m := range mounts {
		if at(m, "mountPath") != filepath.Dir(mountpoint) {
			continue
		}
		if at(m, "mountPropagation") != propagation {
			return "", fmt.Errorf("its propagation is %v, not %s", at(m, "mountPropagation"), propagation)
		}
		volumes, _ := at(pod, "volumes").([]any)
		for _, v := range volumes {
			if at(v, "name") == at(m, "name") {
				return fmt.Sprint(at(v, "hostPath", "path")), nil
			}
		}
	}
	return "", errors.New("the parent of " + mountpoint + " is not mounted from the node")
}
