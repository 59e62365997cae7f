//go:build clients

package clients

import (
	"bytes"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"
)

// root is where install.sh unpacks Debian's packages.
const root = "debian/root"

// daemon is a log daemon that hands on what it is sent.
type daemon struct {
	t    *testing.T
	conn net.Conn // to its socket
}

// startDaemon starts a log daemon in a folder of its own, which ends with the test. Its configuration is a template, and
// address is where it is to send.
func startDaemon(t *testing.T, config, address string, args func(dir, config string) []string) *daemon {
	t.Helper()
	dir := t.TempDir()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	text, err := template.ParseFiles(filepath.Join("debian", config))
	if err != nil {
		t.Fatal(err)
	}
	var filled bytes.Buffer
	if err := text.Execute(&filled, map[string]string{"Dir": dir, "Host": host, "Port": port}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, config)
	if err := os.WriteFile(path, filled.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	command := args(dir, path)
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append(environment(), "TZ=UTC", "LD_LIBRARY_PATH="+strings.Join(libraries(t), ":"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	exited := begin(t, cmd, out.String)
	d := &daemon{t: t}
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(pollInterval) {
		if d.conn, err = net.Dial("unixgram", filepath.Join(dir, "log")); err == nil {
			t.Cleanup(func() { d.conn.Close() })
			return d
		}
		wantRunning(t, exited)
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// begin starts a program, which has to end in good order with the test. exited gets how it ended; said is its output.
func begin(t *testing.T, cmd *exec.Cmd, said func() string) (exited chan error) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (install.sh installs what is missing)", err)
	}
	exited = make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		var err error
		select {
		case err = <-exited:
		case <-time.After(stopTimeout):
			_ = cmd.Process.Kill()
			err = <-exited
		}
		if err != nil || t.Failed() {
			t.Errorf("%s: %v\n%s", cmd.Path, err, said())
		}
	})
	return exited
}

// wantRunning fails the test if the program has ended.
func wantRunning(t *testing.T, exited chan error) {
	t.Helper()
	select {
	case ended := <-exited:
		exited <- ended
		t.Fatal("it ended by itself")
	default:
	}
}

func startRsyslog(t *testing.T, config, address string) *daemon {
	t.Helper()
	return startDaemon(t, config, address, func(_, config string) []string {
		return []string{unpacked(t, "usr/sbin/rsyslogd"), "-n", "-iNONE", "-f", config, "-M", unpacked(t, "usr/lib/*/rsyslog")}
	})
}

func startSyslogNG(t *testing.T, config, address string) *daemon {
	t.Helper()
	return startDaemon(t, config, address, func(dir, config string) []string {
		return []string{
			unpacked(t, "usr/sbin/syslog-ng"), "--foreground", "--no-caps", "--stderr", "--cfgfile", config,
			"--module-path", unpacked(t, "usr/lib/syslog-ng/*/libafsocket.so/.."),
			"--persist-file", filepath.Join(dir, "persist"), "--pidfile", filepath.Join(dir, "pid"), "--control", filepath.Join(dir, "control"),
		}
	})
}

// unpacked is the path of a file of Debian's packages.
func unpacked(t *testing.T, pattern string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("there is no %s in %s, install.sh brings it: %v", pattern, root, err)
	}
	path, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// libraries are the folders with the libraries of Debian's packages.
func libraries(t *testing.T) []string {
	t.Helper()
	return []string{unpacked(t, "usr/lib/syslog-ng"), unpacked(t, "usr/lib/*-linux-gnu"), unpacked(t, "lib/*-linux-gnu")}
}

// send gives the daemon a message, in the form of RFC 5424 or, with a time as there, of RFC 3164.
func (d *daemon) send(modern bool, severity int, at time.Time, text string) {
	d.t.Helper()
	format := `<%d>%s web-1 till[42]: %s`
	if modern {
		format = `<%d>1 %s web-1 till 42 ID47 [order@32473 id="4711" by="ü \""] %s`
	}
	const local1 = 17
	if _, err := fmt.Fprintf(d.conn, format, local1*8+severity, at.Format("2006-01-02T15:04:05.000000Z07:00"), text); err != nil {
		d.t.Fatal(err)
	}
}

// relay sends messages by way of a daemon, and looks for them. unit is that of the timestamps that the daemon hands on,
// structured, unless nil, what the nth message has that only RFC 5424 has a place for.
func (d *daemon) relay(tenant string, unit time.Duration, structured func(n int) map[string]string) {
	d.t.Helper()
	at := time.Now().UTC().Truncate(unit).Add(-time.Minute)
	var want []row
	for n, m := range []struct {
		severity    int
		level, text string
	}{
		{3, "error", "one"}, {6, "info", "two ü \t tab"}, {2, "fatal", "<13>three: [x]"},
	} {
		r := row{
			time: at.Add(time.Duration(n) * unit), msg: m.text,
			labels:   map[string]string{"host": "web-1", "app": "till", "facility": "local1", "level": m.level},
			metadata: map[string]string{"proc_id": "42"},
		}
		if m.severity == 2 { // the level is that of emerg and alert, too
			r.metadata["severity_text"] = "crit"
		}
		if structured != nil {
			maps.Copy(r.metadata, structured(n))
		}
		want = append(want, r)
		d.send(structured != nil, m.severity, r.time, m.text)
	}
	wantRows(d.t, tenant, at, want...)
}

// structured is what only RFC 5424 has a place for.
func structured(int) map[string]string {
	return map[string]string{"msg_id": "ID47", "order@32473.id": "4711", "order@32473.by": `ü "`}
}

func TestRsyslogOctetCounted(t *testing.T) {
	startRsyslog(t, "rsyslog-tcp.conf", at(t, "syslog-tcp-rsyslog-octets")).relay("rsyslog-octets", time.Microsecond, structured)
}

func TestRsyslogLines(t *testing.T) {
	startRsyslog(t, "rsyslog-lines.conf", at(t, "syslog-tcp-rsyslog-lines")).relay("rsyslog-lines", time.Microsecond, nil)
}

func TestRsyslogUDP(t *testing.T) {
	startRsyslog(t, "rsyslog-udp.conf", at(t, "syslog-udp-rsyslog-udp")).relay("rsyslog-udp", time.Second, nil)
}

func TestSyslogNG(t *testing.T) {
	d := startSyslogNG(t, "syslog-ng.conf", at(t, "syslog-tcp-syslog-ng"))
	d.relay("syslog-ng", time.Microsecond, func(n int) map[string]string {
		all := structured(n)
		all["meta.sequenceId"] = strconv.Itoa(n + 1) // it counts
		return all
	})
}

func TestSyslogNGNetwork(t *testing.T) {
	startSyslogNG(t, "syslog-ng-bsd.conf", at(t, "syslog-tcp-syslog-ng-bsd")).relay("syslog-ng-bsd", time.Second, nil)
}

func TestSyslogNGUDP(t *testing.T) {
	startSyslogNG(t, "syslog-ng-udp.conf", at(t, "syslog-udp-syslog-ng-udp")).relay("syslog-ng-udp", time.Second, nil)
}

func TestRsyslogElasticsearch(t *testing.T) {
	d := startRsyslog(t, "rsyslog-elasticsearch.conf", at(t, "http"))
	first := time.Now().UTC().Truncate(time.Microsecond)
	d.send(true, 3, first, "one")
	d.send(true, 5, first.Add(time.Microsecond), `two ü "quoted"`)
	metadata := func(severity string) map[string]string {
		return map[string]string{"host": "web-1", "app": "till", "severity": severity, "facility": "local1"}
	}
	wantRows(t, defaultTenant, first,
		row{first, map[string]string{"index": "syslog", "level": "error"}, "one", metadata("err")},
		row{first.Add(time.Microsecond), map[string]string{"index": "syslog", "level": "info"}, `two ü "quoted"`, metadata("notice")},
	)
}

func TestLogger(t *testing.T) {
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		tenant, listener string
		args             []string
		metadata         map[string]string
	}{
		"tcp": {
			"logger-tcp", "syslog-tcp-logger-tcp", []string{"--tcp", "--rfc5424=notq", "--octet-count", "--msgid", "ID47", "--sd-id", "order@32473", "--sd-param", `id="4711"`},
			map[string]string{"msg_id": "ID47", "order@32473.id": "4711"},
		},
		"udp": {"logger-udp", "syslog-udp-logger-udp", []string{"--udp", "--rfc3164"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			host, port, err := net.SplitHostPort(at(t, c.listener))
			if err != nil {
				t.Fatal(err)
			}
			args := append([]string{"--server", host, "--port", port, "--tag", "till", "--priority", "local1.warning", "--id=42"}, c.args...)
			began := time.Now()
			for _, message := range []string{"one", "two ü"} {
				cmd := exec.CommandContext(t.Context(), "logger", append(args, message)...)
				cmd.Env = append(environment(), "TZ=UTC")
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			metadata := map[string]string{"proc_id": "42"}
			maps.Copy(metadata, c.metadata)
			labels := map[string]string{"host": hostname, "app": "till", "facility": "local1", "level": "warn"}
			wantRows(t, c.tenant, began, row{labels: labels, msg: "one", metadata: metadata}, row{labels: labels, msg: "two ü", metadata: metadata})
		})
	}
}
