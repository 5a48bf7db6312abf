package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// mount(8) and systemd mount what /etc/fstab has of the type modfs with a program called mount.modfs. That is this one, by a
// link of that name, or with --fstab for its first argument.

const (
	helperName = "mount.modfs"
	helperFlag = "--fstab"

	// Exit statuses of mount(8).
	helperUsage  = 1
	helperSystem = 2
	helperFailed = 32
)

// asHelper returns the arguments for mount.modfs, if this process is called as that.
func asHelper(args []string) (rest []string, ok bool) {
	switch {
	case len(args) == 0:
		return nil, false
	case strings.HasPrefix(filepath.Base(args[0]), helperName): // also mount.modfs-1.2, which a link may lead to
		return args[1:], true
	case len(args) > 1 && args[1] == helperFlag:
		return args[2:], true
	}
	return nil, false
}

// helperFlags are those that mount(8) gives to each such program.
type helperFlags struct {
	options                       []string
	sloppy, fake, noMtab, verbose bool
	namespace, kind               string
}

// newHelper returns the command. It is none of modfs's: it has flags, arguments and exit statuses of its own.
func newHelper(f *helperFlags, run func(source, mountpoint string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "mount.modfs SOURCE MOUNTPOINT [-fnsv] [-N NAMESPACE] [-o OPTIONS]",
		Short: "Mount a module cache for mount(8) and fstab(5)",
		Long: `Mount.modfs is what 'mount -t modfs' and lines of the type modfs in /etc/fstab
run. It mounts, leaves the daemon in the background and returns when the mount is
ready. It is modfs under another name, also to be had as 'modfs --fstab':

  ln -s "$(command -v modfs)" /sbin/mount.modfs

SOURCE is modfs:DIR, where DIR is the directory of the store. That is how the
mount is listed, so that 'mount -a' sees that it is there. With another SOURCE
without a slash, such as modfs or none, the option store says where it is.

OPTIONS are separated by commas. A value with commas is put into double quotes.
Each flag of 'modfs mount' is an option, also with _ for -: allow_other,
max_size=20GiB, proxy="https://proxy.example,direct". What else is understood:

  ro, rw                        with and without read-only
  noexec, exec                  with and without noexec
  env.NAME=VALUE                NAME in the environment of the daemon, e.g. env.GOAUTH=off
  nosuid, nodev                 are always in force, suid and dev never
  defaults, auto, noauto, _netdev, nofail, user, users, owner, group, their
  opposites, comment=, x-...    are for who reads fstab
  noatime, relatime, sync, ...  have no meaning here

Any other option is an error, or ignored with -s. A mount cannot be changed
(remount) while it is there.

At boot there is hardly an environment. HOME is that of the user in /etc/passwd,
and where PATH has no go command, /usr/local/go/bin is looked at. Without one
the options proxy and sumdb must be given.`,
		Args:                  cobra.ExactArgs(2),
		SilenceErrors:         true,
		SilenceUsage:          true,
		DisableFlagsInUseLine: true,
		Annotations: map[string]string{
			manNameKey: helperName,
			exitKey:    "Those of mount(8): 0; 1 if it was called in the wrong way, options included; 2 if the system failed; 32 if it could not be mounted.",
		},
		RunE: func(_ *cobra.Command, args []string) error { return run(args[0], args[1]) },
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringArrayVarP(&f.options, "options", "o", nil, "mount with these `options`")
	fs.BoolVarP(&f.sloppy, "sloppy", "s", false, "ignore options that are not known")
	fs.BoolVarP(&f.fake, "fake", "f", false, "check everything, and do not mount")
	fs.BoolVarP(&f.noMtab, "no-mtab", "n", false, "without a meaning: nothing writes /etc/mtab")
	fs.BoolVarP(&f.verbose, "verbose", "v", false, "say what is done")
	fs.StringVarP(&f.namespace, "namespace", "N", "", "mount in the mount namespace of this process, or in this file of one (`namespace`)")
	fs.StringVarP(&f.kind, "types", "t", "", "without a meaning: the `type` is modfs")
	return cmd
}

// runHelper is mount.modfs. It returns the exit status.
func runHelper(args []string, stdout, stderr io.Writer) int {
	f, status := new(helperFlags), 0
	cmd := newHelper(f, func(source, mountpoint string) (err error) {
		status, err = f.mount(args, source, mountpoint, stdout, stderr)
		return err
	})
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.Execute()
	if err == nil {
		return status
	}
	fmt.Fprintf(stderr, "%s: %s\n", helperName, oneLine(err))
	if _, ok := errors.AsType[*exec.Error](err); ok {
		return helperSystem
	}
	return max(status, helperUsage)
}

// mount mounts as 'modfs mount --background' does.
func (f *helperFlags) mount(args []string, source, mountpoint string, stdout, stderr io.Writer) (status int, err error) {
	o, err := parseMountOptions(f.options, f.sloppy)
	if err != nil {
		return helperUsage, err
	}
	if err := o.source(source); err != nil {
		return helperUsage, err
	}
	if o.remount {
		return helperFailed, errors.New("a mount cannot be changed: unmount it, and mount it again")
	}
	if f.namespace != "" {
		return enterNamespace(f.namespace, args)
	}
	if err := o.environment(); err != nil {
		return helperUsage, err
	}
	command := append([]string{"modfs", "mount", "--background", "--quiet"}, o.flags...)
	command = append(command, "--", mountpoint)
	if f.verbose {
		fmt.Fprintf(stderr, "%s: %s\n", helperName, strings.Join(command, " "))
	}
	if f.fake {
		return 0, nil
	}
	// The daemon is this very command, started again with these arguments, as with --background.
	os.Args = command
	switch execute(command[1:], stdout, stderr) {
	case 0:
		return 0, nil
	case exitUsage:
		return helperUsage, nil
	}
	return helperFailed, nil
}

// enterNamespace runs mount.modfs again in another mount namespace, of a process or a file. nsenter(1) is for programs with more
// than one thread, which cannot enter one.
func enterNamespace(namespace string, args []string) (status int, err error) {
	if strings.Trim(namespace, "0123456789") == "" {
		namespace = "/proc/" + namespace + "/ns/mnt"
	}
	exe, err := os.Executable()
	if err != nil {
		return helperSystem, err
	}
	cmd := exec.Command("nsenter", append([]string{"--mount=" + namespace, "--", exe, helperFlag}, withoutNamespace(args)...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return helperSystem, err
	}
	return 0, nil
}

// withoutNamespace returns args without -N, in all ways in which it can be written but for among other letters.
func withoutNamespace(args []string) []string {
	var rest []string
	for i := 0; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-N" || a == "--namespace":
			i++
		case strings.HasPrefix(a, "-N") || strings.HasPrefix(a, "--namespace="):
		default:
			rest = append(rest, a)
		}
	}
	return rest
}

// mountOptions is what the options of mount(8) mean.
type mountOptions struct {
	flags   []string // of 'modfs mount'
	env     []string // NAME=VALUE
	remount bool
}

// optionAliases are options that mean a flag of 'modfs mount'.
var optionAliases = map[string]string{
	"ro": "--read-only", "rw": "--read-only=false", "noexec": "--noexec", "exec": "--noexec=false",
}

// ignoredOptions are for mount(8), systemd and others who read fstab, or mean nothing to a file system like this one. What comes
// after "=" is theirs, too.
var ignoredOptions = strings.Fields(`
	defaults auto noauto nofail fail _netdev no_netdev user nouser users nousers owner noowner group nogroup comment uhelper helper
	suid nosuid dev nodev async sync dirsync atime noatime diratime nodiratime relatime norelatime strictatime nostrictatime lazytime nolazytime
	mand nomand iversion noiversion silent loud nosymfollow symfollow default_permissions`)

// hiddenFlags are flags of 'modfs mount' that are no options.
var hiddenFlags = map[string]bool{"help": true, "background": true, "quiet": true}

// parseMountOptions reads the values of -o. The error names the option that is wrong; with sloppy, one that is not known is none.
func parseMountOptions(lists []string, sloppy bool) (*mountOptions, error) {
	known := newMount().Flags()
	o := new(mountOptions)
	for _, list := range lists {
		options, err := splitOptions(list)
		if err != nil {
			return nil, err
		}
		for _, option := range options {
			if err := o.add(known, option, sloppy); err != nil {
				return nil, err
			}
		}
	}
	return o, nil
}

// add adds one option.
func (o *mountOptions) add(known *pflag.FlagSet, option string, sloppy bool) error {
	name, value, hasValue := strings.Cut(option, "=")
	switch variable, isEnv := strings.CutPrefix(name, "env."); {
	case option == "":
		return nil
	case isEnv && hasValue && variable != "":
		o.env = append(o.env, variable+"="+value)
		return nil
	case name == "remount":
		o.remount = true
		return nil
	case strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-"):
		return nil
	}
	if flag, ok := optionAliases[name]; ok && !hasValue {
		o.flags = append(o.flags, flag)
		return nil
	}
	for _, ignored := range ignoredOptions {
		if name == ignored {
			return nil
		}
	}
	f := known.Lookup(strings.ReplaceAll(name, "_", "-"))
	switch {
	case (f == nil || hiddenFlags[f.Name]) && sloppy:
		return nil
	case f == nil || hiddenFlags[f.Name]:
		return fmt.Errorf("unknown option %q: 'man mount.modfs' has those there are", name) // the value may be a secret
	case !hasValue && f.NoOptDefVal == "":
		return fmt.Errorf("option %s needs a value: %[1]s=VALUE", name)
	case !hasValue:
		value = f.NoOptDefVal
	}
	if err := f.Value.Set(value); err != nil {
		return fmt.Errorf("option %s: %w", name, err)
	}
	o.flags = append(o.flags, "--"+f.Name+"="+value)
	return nil
}

// splitOptions splits a list at its commas, but for those in double quotes, which are taken away.
func splitOptions(list string) ([]string, error) {
	var options []string
	var b strings.Builder
	quoted := false
	for _, r := range list {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ',' && !quoted:
			options = append(options, b.String())
			b.Reset()
		default:
			b.WriteRune(r)
		}
	}
	if quoted {
		return nil, errors.New("the options have a double quote without its other half")
	}
	return append(options, b.String()), nil
}

// source takes the store from the SOURCE of a mount. A path is none: of a word such as modfs, mount(8) makes one for users other
// than root, if there is such a file where they are.
func (o *mountOptions) source(source string) error {
	store := ""
	for _, flag := range o.flags {
		if dir, ok := strings.CutPrefix(flag, "--store="); ok {
			store = dir
		}
	}
	dir, named := strings.CutPrefix(source, "modfs:")
	switch {
	case named && !filepath.IsAbs(dir):
		return fmt.Errorf("source %q: want modfs:DIR, with an absolute path, or modfs", source)
	case !named && strings.ContainsRune(source, '/') && store == "":
		return fmt.Errorf("source %q: want modfs:DIR, where DIR is the store, or the option store=DIR", source)
	case !named:
		return nil
	case store != "" && filepath.Clean(store) != filepath.Clean(dir):
		return fmt.Errorf("the store is %s according to the source, and %s according to the option store", dir, store)
	}
	o.flags = append(o.flags, "--store="+dir)
	return nil
}

// environment sets that of the daemon: what the options say, and what is missing at boot.
func (o *mountOptions) environment() error {
	for _, kv := range o.env {
		name, value, _ := strings.Cut(kv, "=")
		if err := os.Setenv(name, value); err != nil {
			return fmt.Errorf("option env.%s: %w", name, err)
		}
	}
	if os.Getenv("HOME") == "" {
		if u, err := user.LookupId(fmt.Sprint(os.Geteuid())); err == nil && u.HomeDir != "" {
			os.Setenv("HOME", u.HomeDir)
		}
	}
	if os.Getenv("PATH") == "" {
		os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	if _, err := exec.LookPath("go"); err != nil {
		const usual = "/usr/local/go/bin" // https://go.dev/doc/install
		os.Setenv("PATH", os.Getenv("PATH")+string(os.PathListSeparator)+usual)
	}
	if _, err := exec.LookPath("go"); err == nil {
		return nil
	}
	for _, setting := range []struct{ flag, variable string }{{"proxy", "GOPROXY"}, {"sumdb", "GOSUMDB"}} {
		given := os.Getenv(setting.variable) != ""
		for _, flag := range o.flags {
			given = given || strings.HasPrefix(flag, "--"+setting.flag+"=")
		}
		if !given {
			return fmt.Errorf("there is no go command in PATH to ask for %s: give the option %s=... (or env.PATH=... where it is)", setting.variable, setting.flag)
		}
	}
	return nil
}
