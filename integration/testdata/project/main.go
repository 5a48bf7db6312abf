// Command project is what the documentation builds.
package main

import "example.com/b"

func main() { println(b.Hello()) }
