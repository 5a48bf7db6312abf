package fs

// advice says for each class of causes what to do about it. docs/troubleshooting.md says more.
var advice = map[string][]string{
	"name":         {"check the spelling, and that it is the path of a module, not of a package"},
	"own":          {"nothing: a program looks whether somebody is at work there"},
	"hidden":       {"get it by the go command with your own credentials: on a read-write mount it goes to the writable layer", "or mount with --private-modules serve, if all who can read the mount may have it"},
	"removed":      {"let a go command fetch it: 'go mod download MODULE@VERSION'"},
	"not_offered":  {"run the go command that needs it: it stores the .mod file, and the mount offers the rest", "or mount with --resolve daemon, or --read-only, where all that the daemon can get is there by its name"},
	"no_such_file": {"look for the file in another version: 'ls' of the module's directory lists this one"},
	"off":          {"set GOPROXY ('go env -w GOPROXY=…') or --proxy, and mount again"},
	"private":      {"take it out of GOPRIVATE or GONOPROXY if a proxy has it", "or let the daemon resolve (--resolve daemon): it then asks version control"},
	"offline":      {"open it once on a mount without --offline, or bring it: 'modfs bundle go.sum -o FILE' there, 'modfs import --offline FILE' here"},
	"not_found":    {"check the version: 'go list -m -versions MODULE' names those that there are", "if the module is private, list it in GOPRIVATE, and give the daemon credentials", "if it was published just now, try again in a moment: nobody remembers a 404 for long but the proxy itself"},
	"invalid":      {"the module breaks the rules for module zips, and the go command would refuse it as well: tell its author, or use another version"},
	"forbidden":    {"give the daemon credentials: .netrc, GOAUTH, or in the URL of GOPROXY (https only); 'modfs status' shows which upstream refuses", "for version control: an SSH key or credential helper of the daemon's user, and GOVCS that allows it"},
	"unreachable":  {"look at the network and at the proxy's address: 'modfs doctor' tries both; what is in the store works meanwhile", "behind a firewall, set HTTPS_PROXY for the daemon and mount again"},
	"timeout":      {"try again: what was downloaded so far is not kept, but a slow proxy may have it ready by now", "for large modules and slow networks, mount with a longer --timeout or --idle-timeout"},
	"mismatch":     {"do not use these bytes: what was sent is not what the checksum database, or this store's first download, says", "if only one proxy sends them, tell who runs it; if a tag was moved, use a new version", "if the first download was the wrong one (a private module), evict the module and remove its line from the store's pins"},
	"sumdb":        {"find out whether something between you and the checksum database changes its answers; 'GOSUMDB' names the database and key", "if the database contradicts itself, keep what the error says as evidence before you remove sumdb/ from the store"},
	"damaged":      {"give the daemon a network, so that it can fetch the file again: that repairs it", "check the disk and file system, and all else in the store: 'modfs verify --repair'"},
	"no_space":     {"make room on the store's partition, or lower --min-free", "or raise --max-size: all that could be evicted is in use"},
	"too_large":    {"raise --max-size above the size of the module; the go command itself accepts 500 MiB at most"},
	"bad_answer":   {"see what is at the URL: a login page of a network or proxy, most likely", "sign in there, or set GOPROXY to an address that answers programs"},
	"not_in_sumdb": {"if the module is private, list it in GOPRIVATE (or GONOSUMDB) and mount again", "if it is public, its author has not made it reachable for the checksum database"},
	"ending":       {"try again when the daemon is back: it was told to end"},
	"interrupted":  {"run it again"},
	"upstream":     {"try again, and look at 'modfs status' for the upstream's last error", "if it stays, 'modfs doctor --bundle FILE' packs what a bug report needs"},
}

// advise adds what to do about an error.
func (a *Answer) advise() {
	if a.State != AnswerError {
		return
	}
	a.Advice = advice[a.Class]
	if a.Advice == nil {
		a.Advice = advice["upstream"]
	}
}
