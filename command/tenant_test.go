package command

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"
)

func TestTenantToken(t *testing.T) {
	t.Parallel()
	code, stdout, _ := run(t, "", "tenant", "token")
	match := regexp.MustCompile(`^(lt_[A-Za-z0-9_-]{43})\n(sha256:[0-9a-f]{64})\n$`).FindStringSubmatch(stdout)
	if code != 0 || match == nil {
		t.Fatalf("exit code %d: %q", code, stdout)
	}
	if _, hash, _ := run(t, match[1]+"\n", "tenant", "hash", "--token"); hash != match[2]+"\n" {
		t.Errorf("the hash is %q, want %q", hash, match[2])
	}
	if _, again, _ := run(t, "", "tenant", "token"); again == stdout {
		t.Error("two tokens are the same")
	}
}

func TestTenantHash(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("p", maxPassword)
	for name, c := range map[string]struct {
		stdin, password string
		want            []string // where it fails
	}{
		"line":               {"hunter2\n", "hunter2", nil},
		"line of Windows":    {"hunter2\r\n", "hunter2", nil},
		"no line end":        {"hunter2", "hunter2", nil},
		"spaces":             {" hunt er2 \n", " hunt er2 ", nil},
		"as long as it may":  {long, long, nil},
		"longer":             {long + "p", "", []string{"72 bytes", "--token"}},
		"nothing":            {"", "", []string{"no secret"}},
		"empty line":         {"\n", "", []string{"no secret"}},
		"two lines":          {"hunter2\nhunter3\n", "", []string{"more than one line"}},
		"far more than most": {strings.Repeat("hunter2", 20_000), "", []string{"more than one line"}},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := run(t, c.stdin, "tenant", "hash")
			if c.want != nil {
				wantFailure(t, code, exitFailure, stderr, c.want...)
			} else if err := bcrypt.CompareHashAndPassword([]byte(strings.TrimSuffix(stdout, "\n")), []byte(c.password)); code != 0 || err != nil {
				t.Errorf("exit code %d, %q: %v", code, stdout, err)
			}
			if strings.Contains(stdout+stderr, "hunter2") || strings.Contains(stdout+stderr, long) {
				t.Errorf("the secret is told: %q", stdout+stderr)
			}
		})
	}
	code, _, stderr := run(t, "a token\n", "tenant", "hash", "--token")
	wantFailure(t, code, exitFailure, stderr, "no spaces")
	code, _, stderr = run(t, "", "tenant", "hash", "a-password")
	wantFailure(t, code, exitUsage, stderr)
}

func TestTenantCheck(t *testing.T) {
	t.Parallel()
	_, token, _ := run(t, "", "tenant", "token")
	_, tokenHash, _ := strings.Cut(strings.TrimSpace(token), "\n")
	_, hash, _ := run(t, "hunter2", "tenant", "hash")
	file := filepath.Join(t.TempDir(), "tenants.yaml")
	for _, c := range []struct {
		content string
		code    int
		want    string
	}{
		// What the tools print stands in the file as it is.
		{"tenants:\n  acme:\n    tokens:\n      - " + tokenHash + "\n    users:\n      - name: alice\n        password: " + hash + "  beta: {}\n", 0, "2 tenants, 2 credentials\n"},
		{"tenants: {acme: {certificates: [CN=a]}}", 0, "1 tenant, 1 credential\n"},
		{"tenants:\n  acme:\n    limit: {}\n    limits: {max_streams: -1}\n", exitFailure,
			file + ":3: tenant acme: a tenant has no such key: \"limit\"\n" + file + ":4: tenant acme: max_streams: \"-1\" is not a whole number such as 100\n"},
	} {
		writeFile(t, file, c.content)
		if code, stdout, stderr := run(t, "", "tenant", "check", file); code != c.code || stdout != c.want || stderr != "" {
			t.Errorf("%s\nexit code %d, %q, %q", c.content, code, stdout, stderr)
		}
	}
	code, _, stderr := run(t, "", "tenant", "check", file+".none")
	wantFailure(t, code, exitFailure, stderr, file+".none", "no such file")
}
