package clients

import (
	"log/syslog"
	"os"
	"strconv"
	"testing"
	"time"
)

func TestSyslogOfGo(t *testing.T) {
	began := time.Now()
	log, err := syslog.Dial("tcp", at(t, "syslog-tcp-go-syslog"), syslog.LOG_LOCAL3, "till")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for _, err := range []error{log.Info("one"), log.Err("two ü"), log.Emerg("three")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	// Within its whole second the order is that in which they came.
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	labels := func(level string) map[string]string {
		return map[string]string{"host": host, "app": "till", "facility": "local3", "level": level}
	}
	pid := strconv.Itoa(os.Getpid())
	metadata := map[string]string{"proc_id": pid}
	wantRows(t, "go-syslog", began,
		row{labels: labels("info"), msg: "one", metadata: metadata},
		row{labels: labels("error"), msg: "two ü", metadata: metadata},
		row{labels: labels("fatal"), msg: "three", metadata: map[string]string{"proc_id": pid, "severity_text": "emerg"}},
	)
}
