package fs

import "github.com/hanwen/go-fuse/v2/fuse"

// The requests of a measured: those of its FS, timed. One whose handler panics is counted as a panic only.

func (m *measured) Lookup(cancel <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	start := m.now()
	status := m.FS.Lookup(cancel, in, name, out)
	m.note(RequestLookup, in.Pid, start)
	return status
}

func (m *measured) GetAttr(cancel <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	start := m.now()
	status := m.FS.GetAttr(cancel, in, out)
	m.note(RequestGetAttr, in.Pid, start)
	return status
}

func (m *measured) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	start := m.now()
	status := m.FS.SetAttr(cancel, in, out)
	m.note(RequestSetAttr, in.Pid, start)
	return status
}

func (m *measured) ReadDir(cancel <-chan struct{}, in *fuse.ReadIn, l *fuse.DirEntryList) fuse.Status {
	start := m.now()
	status := m.FS.ReadDir(cancel, in, l)
	m.note(RequestReadDir, in.Pid, start)
	return status
}

func (m *measured) ReadDirPlus(cancel <-chan struct{}, in *fuse.ReadIn, l *fuse.DirEntryList) fuse.Status {
	start := m.now()
	status := m.FS.ReadDirPlus(cancel, in, l)
	m.note(RequestReadDirPlus, in.Pid, start)
	return status
}

func (m *measured) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	start := m.now()
	status := m.FS.StatFs(cancel, in, out)
	m.note(RequestStatFs, in.Pid, start)
	return status
}

func (m *measured) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	start := m.now()
	status := m.FS.Create(cancel, in, name, out)
	m.note(RequestCreate, in.Pid, start)
	return status
}

func (m *measured) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	start := m.now()
	status := m.FS.Mkdir(cancel, in, name, out)
	m.note(RequestMkdir, in.Pid, start)
	return status
}

func (m *measured) Mknod(cancel <-chan struct{}, in *fuse.MknodIn, name string, out *fuse.EntryOut) fuse.Status {
	start := m.now()
	status := m.FS.Mknod(cancel, in, name, out)
	m.note(RequestMknod, in.Pid, start)
	return status
}

func (m *measured) Symlink(cancel <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	start := m.now()
	status := m.FS.Symlink(cancel, in, target, name, out)
	m.note(RequestSymlink, in.Pid, start)
	return status
}

func (m *measured) Link(cancel <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	start := m.now()
	status := m.FS.Link(cancel, in, name, out)
	m.note(RequestLink, in.Pid, start)
	return status
}

func (m *measured) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	start := m.now()
	status := m.FS.Unlink(cancel, in, name)
	m.note(RequestUnlink, in.Pid, start)
	return status
}

func (m *measured) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	start := m.now()
	status := m.FS.Rmdir(cancel, in, name)
	m.note(RequestRmdir, in.Pid, start)
	return status
}

func (m *measured) Rename(cancel <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	start := m.now()
	status := m.FS.Rename(cancel, in, oldName, newName)
	m.note(RequestRename, in.Pid, start)
	return status
}

func (m *measured) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	start := m.now()
	status := m.FS.Fsync(cancel, in)
	m.note(RequestFsync, in.Pid, start)
	return status
}

func (m *measured) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	start := m.now()
	status := m.FS.Fallocate(cancel, in)
	m.note(RequestFallocate, in.Pid, start)
	return status
}

func (m *measured) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	start := m.now()
	result, status := m.FS.Read(cancel, in, buf)
	m.note(RequestRead, in.Pid, start)
	return result, status
}

func (m *measured) Readlink(cancel <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	start := m.now()
	target, status := m.FS.Readlink(cancel, in)
	m.note(RequestReadlink, in.Pid, start)
	return target, status
}

func (m *measured) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	start := m.now()
	n, status := m.FS.Write(cancel, in, data)
	m.note(RequestWrite, in.Pid, start)
	return n, status
}

func (m *measured) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	start := m.now()
	status := m.FS.FsyncDir(cancel, in)
	m.note(RequestFsync, in.Pid, start)
	return status
}
