package fetch

import "syscall"

// killWithParent has a process killed when the thread that started it ends, as it does when this process is killed. What the
// process itself started is not: git ends when nothing comes for some time.
func killWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
