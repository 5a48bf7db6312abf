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
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}
