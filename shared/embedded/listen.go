package embedded

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// errAddressTaken is in the error of an address that another process listens on.
var errAddressTaken = errors.New("address already in use")

// reserve listens on address and returns the listener, whose port is the one
// chosen where address had port 0. The engines bind for themselves, so close
// it just before they start. flag is named in the error.
func reserve(flag, address string) (*net.TCPListener, error) {
	listener, err := net.Listen("tcp", address) //nolint:noctx // binding does not wait
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: %w; stop what listens there or choose another address with %s", address, errAddressTaken, flag)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s; give a host:port of this machine with %s: %w", address, flag, err)
	}
	return listener.(*net.TCPListener), nil
}
