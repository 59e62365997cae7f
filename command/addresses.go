package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// addressesFile is where a running Logthra leaves its addresses, in its data directory, so that tools find it
// whatever ports it took.
const addressesFile = "addresses.json"

// writeAddresses leaves the addresses of the process for the tools.
func (p *process) writeAddresses(dir string) error {
	text, err := json.MarshalIndent(p.addresses(), "", "  ")
	if err != nil {
		return err
	}
	// A tool finds all of it or none.
	path := filepath.Join(dir, addressesFile)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("writing the addresses: %w", err)
	}
	return os.Rename(path+".new", path)
}

// removeAddresses takes them away, if they are there.
func removeAddresses(dir string) { _ = os.Remove(filepath.Join(dir, addressesFile)) }

// readAddresses returns the addresses that a running Logthra left in its data directory; none where none runs.
func readAddresses(dir string) (map[string]string, error) {
	path := filepath.Join(dir, addressesFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, err
	}
	addresses := map[string]string{}
	if err := json.Unmarshal(text, &addresses); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return addresses, nil
}
