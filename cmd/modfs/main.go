// Command modfs mounts a lazy Go module cache. See the README.
package main

import "os"

func main() {
	if status, ok := runProbe(os.Stdout); ok {
		os.Exit(status)
	}
	if status, ok := runTryNamespace(); ok {
		os.Exit(status)
	}
	if args, ok := asHelper(os.Args); ok {
		os.Exit(runHelper(args, os.Stdout, os.Stderr))
	}
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}
