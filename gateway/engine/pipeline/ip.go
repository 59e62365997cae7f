package pipeline

import (
	"fmt"
	"net/netip"
	"strings"
)

// ipMatcher holds for text with an address in it that is one, in a range of addresses, or in a network: ip("192.168.4.5/16").
//
// Addresses of IPv4 are looked for among the digits and dots that stand together, those of IPv6 among hexadecimal digits, colons and dots, and have to be all of that: no address
// is found in 1.1.1.1.1, nor in "from 1.1.1.1.".
type ipMatcher struct{ from, to netip.Addr }

func newIPMatcher(text string) (*ipMatcher, error) {
	if from, to, ok := strings.Cut(text, "-"); ok {
		first, err1 := netip.ParseAddr(from)
		last, err2 := netip.ParseAddr(to)
		if err1 == nil && err2 == nil && first.BitLen() == last.BitLen() && !last.Less(first) {
			return &ipMatcher{first, last}, nil
		}
	} else if prefix, err := netip.ParsePrefix(text); err == nil {
		return &ipMatcher{prefix.Masked().Addr(), lastOf(prefix)}, nil
	} else if addr, err := netip.ParseAddr(text); err == nil {
		return &ipMatcher{addr, addr}, nil
	}
	return nil, fmt.Errorf("ip: invalid pattern: %q", text)
}

// lastOf is the last address of a network.
func lastOf(prefix netip.Prefix) netip.Addr {
	bytes := prefix.Addr().AsSlice()
	for bit := prefix.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	return last
}

func (m *ipMatcher) matches(line []byte) bool { return m.contains(view(line)) }

func (m *ipMatcher) contains(s string) bool {
	for i := 0; i < len(s); {
		if !addressByte[s[i]] {
			i++
			continue
		}
		end, colons := i, 0
		for end < len(s) && addressByte[s[end]] {
			if s[end] == ':' {
				colons++
			}
			end++
		}
		if m.inRun(s[i:end], colons) {
			return true
		}
		i = end
	}
	return false
}

// inRun looks for an address in bytes that may be part of one.
func (m *ipMatcher) inRun(s string, colons int) bool {
	if colons >= 2 && len(s) <= len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255") && (colons >= 6 || strings.Contains(s, "::")) {
		if addr, err := netip.ParseAddr(s); err == nil {
			return m.has(addr)
		}
	}
	for i := 0; i < len(s); {
		end, dots := i, 0
		for end < len(s) && (isDigit(s[end]) || s[end] == '.') {
			if s[end] == '.' {
				dots++
			}
			end++
		}
		if dots == 3 && end-i <= len("255.255.255.255") {
			if addr, err := netip.ParseAddr(s[i:end]); err == nil && m.has(addr) {
				return true
			}
		}
		i = end + 1
	}
	return false
}

func (m *ipMatcher) has(a netip.Addr) bool {
	return a.BitLen() == m.from.BitLen() && !a.Less(m.from) && !m.to.Less(a)
}

// addressByte tells for each byte whether it may be part of an address.
var addressByte = func() (table [256]bool) {
	for _, c := range "0123456789abcdefABCDEF:." {
		table[c] = true
	}
	return table
}()
