package control

// moduleList returns the modules in the store that the mount shows: a store may have private ones from before they were hidden. Of where
// they came from, only the host is told.
func (w *Web) moduleList() []webModule {
	residents := w.fs.Residents()
	all := make([]webModule, 0, len(residents))
	for _, r := range residents {
		if r.Missing || w.fs.Hides(r.Module) {
			continue
		}
		m := webModule{Module: r.Module, Version: r.Version, Size: r.Disk, Used: r.Used, Pinned: r.Pinned}
		if r.Source != "" {
			m.Source = upstreamLabel(r.Source)
		}
		all = append(all, m)
	}
	return all
}
