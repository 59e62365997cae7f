package command

import "testing"

func TestReachedAt(t *testing.T) {
	for _, c := range []struct{ address, host, want string }{
		{"127.0.0.1:9011", "10.0.0.7", "127.0.0.1:9011"},
		{"192.168.1.2:9011", "10.0.0.7", "192.168.1.2:9011"},
		{"0.0.0.0:9011", "10.0.0.7", "10.0.0.7:9011"},
		{"[::]:9011", "10.0.0.7", "10.0.0.7:9011"},
		{"[::]:9011", "fd00::7", "[fd00::7]:9011"},
		{"[::]:9011", "", "[::]:9011"},
	} {
		if got := reachedAt(c.address, c.host); got != c.want {
			t.Errorf("%s at %q: %s", c.address, c.host, got)
		}
	}
}
