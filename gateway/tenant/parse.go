package tenant

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/crypto/bcrypt"

	"github.com/casteloig/logthra/shared/config"
	"github.com/casteloig/logthra/shared/logs"
	"github.com/casteloig/logthra/shared/wal"
)

// maxFile is the most bytes that a file of tenants may have.
const maxFile = 16 << 20

// tokenPrefix begins the hash of a token, its SHA-256 in hex.
const tokenPrefix = "sha256:"

// maxCost is the most that a password may cost, seconds already.
const maxCost = 16

// bcryptHash is what a hash of bcrypt looks like: version, cost, salt and sum. bcrypt itself takes more, and then fails
// without computing anything, which would tell that the user exists.
var bcryptHash = regexp.MustCompile(`^\$2[aby]\$[0-9]{2}\$[./A-Za-z0-9]{53}$`)

// aUser is what errors call one.
const aUser = "a user"

// Load reads a file of tenants. Its error has everything that is wrong with it, each on a line of its own that begins with
// file and line, and nothing that is secret.
func Load(path string) (*Directory, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(data, path)
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	return data, err
}

// Parse is Load of a file that has been read. name is its name for errors.
func Parse(data []byte, name string) (*Directory, error) {
	var document yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%s: the file is empty", name)
	case err != nil:
		return nil, syntaxError(name, err)
	}
	switch err := decoder.Decode(new(yaml.Node)); {
	case err == nil:
		return nil, fmt.Errorf("%s: the file has more than one document", name)
	case !errors.Is(err, io.EOF):
		return nil, syntaxError(name, err)
	}
	p := parser{name: name, lines: map[string]int{}, directory: &Directory{
		tenants: map[string]*entry{}, tokens: map[[sha256.Size]byte]*entry{}, users: map[string]user{}, certificates: map[string]*entry{},
	}}
	p.document(document.Content[0])
	if len(p.wrong) > 0 {
		return nil, errors.Join(p.wrong...)
	}
	p.directory.passwords = newPasswords()
	p.directory.dummy = dummyHash(cmp.Or(p.cost, bcrypt.DefaultCost))
	return p.directory, nil
}

// syntaxError says where YAML is broken. What the decoder says of an alias is left out: a password may begin with an
// asterisk.
func syntaxError(name string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if strings.Contains(text, "anchor") {
		return fmt.Errorf("%s: an alias (*) has no anchor (&) before it; quote what is no alias", name)
	}
	if at, ok := strings.CutPrefix(text, "line "); ok {
		return fmt.Errorf("%s:%s", name, at)
	}
	return fmt.Errorf("%s: %s", name, text)
}

// parser goes over a file and gathers what is wrong.
type parser struct {
	name      string
	directory *Directory
	tenant    string         // the one that is read
	lines     map[string]int // where a credential was given first
	cost      int            // the highest of bcrypt's
	chosen    bool           // whether the defaults choose what is out of the window
	wrong     []error
}

func (p *parser) fail(at *yaml.Node, format string, args ...any) {
	where := fmt.Sprintf("%s:%d: ", p.name, at.Line)
	if p.tenant != "" {
		where += "tenant " + p.tenant + ": "
	}
	p.wrong = append(p.wrong, errors.New(where+fmt.Sprintf(format, args...)))
}

// mapping calls read for each key of a mapping. What read does not know it returns false for.
func (p *parser) mapping(node *yaml.Node, what string, read func(key string, at, value *yaml.Node) bool) {
	if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
		return
	}
	if node.Kind != yaml.MappingNode {
		p.fail(node, "%s is to be a mapping", what)
		return
	}
	seen := map[string]bool{}
	for i := 0; i < len(node.Content); i += 2 {
		at, value := node.Content[i], node.Content[i+1]
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		switch key := at.Value; {
		case seen[key]:
			p.fail(at, "%s has a key twice%s", what, shown(what, key))
		case !read(key, at, value):
			p.fail(at, "%s has no such key%s", what, shown(what, key))
		}
		seen[at.Value] = true
	}
}

// shown is a key as errors show it: not at all where it may be a secret that slipped into its place.
func shown(what, key string) string {
	const most = 32 // bytes
	if what == aUser || len(key) > most {
		return ""
	}
	return ": " + strconv.Quote(key)
}

func (p *parser) document(root *yaml.Node) {
	var tenants *yaml.Node
	p.mapping(root, "the file", func(key string, _, value *yaml.Node) bool {
		switch key {
		case "defaults":
			p.mapping(value, "defaults", func(key string, _, value *yaml.Node) bool {
				if key == "limits" {
					p.limits(value, &p.directory.defaults, &p.directory.queries)
				}
				return key == "limits"
			})
		case "tenants":
			tenants = value
		default:
			return false
		}
		return true
	})
	if tenants == nil || len(tenants.Content) == 0 {
		p.fail(root, "there are no tenants")
		return
	}
	p.mapping(tenants, "tenants", func(key string, at, value *yaml.Node) bool {
		if !wal.ValidTenant(key) {
			p.fail(at, "tenant %q does not match %s", logs.Clip(key), wal.TenantPattern)
			return true
		}
		p.tenant = key
		p.entry(value)
		p.tenant = ""
		return true
	})
}

func (p *parser) entry(node *yaml.Node) {
	e := &entry{
		name: p.tenant, allow: map[string]bool{p.tenant: true}, limits: p.directory.defaults, queries: slices.Clone(p.directory.queries),
	}
	p.directory.tenants[p.tenant] = e
	p.mapping(node, "a tenant", func(key string, _, value *yaml.Node) bool {
		switch key {
		case "tokens":
			p.list(value, key, func(item *yaml.Node) { p.token(item, e) })
		case "users":
			p.list(value, key, func(item *yaml.Node) { p.user(item, e) })
		case "certificates":
			p.list(value, key, func(item *yaml.Node) { p.certificate(item, e) })
		case "allow":
			p.list(value, key, func(item *yaml.Node) {
				switch {
				case item.Value == "*":
					e.any = true
				case wal.ValidTenant(item.Value):
					e.allow[item.Value] = true
				default:
					p.fail(item, "allow: tenant %q does not match %s", logs.Clip(item.Value), wal.TenantPattern)
				}
			})
		case "limits":
			p.limits(value, &e.limits, &e.queries)
		default:
			return false
		}
		return true
	})
}

// list calls read for each item of a list.
func (p *parser) list(node *yaml.Node, what string, read func(*yaml.Node)) {
	if node.Kind != yaml.SequenceNode {
		p.fail(node, "%s is to be a list", what)
		return
	}
	for _, item := range node.Content {
		if item.Kind == yaml.AliasNode {
			item = item.Alias
		}
		read(item)
	}
}

// once checks that a credential was not given before: it could be but one tenant's.
func (p *parser) once(at *yaml.Node, what, id string) bool {
	if line, ok := p.lines[id]; ok {
		p.fail(at, "the same %s stands in line %d", what, line)
		return false
	}
	p.lines[id] = at.Line
	return true
}

func (p *parser) token(item *yaml.Node, e *entry) {
	text, ok := strings.CutPrefix(item.Value, tokenPrefix)
	sum, err := hex.DecodeString(text)
	if !ok || err != nil || len(sum) != sha256.Size {
		p.fail(item, "tokens: want %s and 64 hex digits, as logthra tenant hash --token prints them", tokenPrefix)
		return
	}
	if p.once(item, "token", string(sum)) {
		p.directory.tokens[[sha256.Size]byte(sum)] = e
	}
}

func (p *parser) user(item *yaml.Node, e *entry) {
	var name, hash string
	p.mapping(item, aUser, func(key string, _, value *yaml.Node) bool {
		switch key {
		case "name":
			name = value.Value
		case "password":
			hash = value.Value
		default:
			return false
		}
		return true
	})
	cost, err := bcrypt.Cost([]byte(hash))
	switch {
	case name == "" || strings.Contains(name, ":"):
		p.fail(item, "users: a user needs a name without a colon")
	case err != nil || cost > maxCost || !bcryptHash.MatchString(hash):
		// Not even the name is shown: it is the password where they changed places.
		p.fail(item, "users: a password is to be a hash of bcrypt, as logthra tenant hash prints it, of cost %d at most", maxCost)
	case p.once(item, "user", "user:"+name):
		p.cost = max(p.cost, cost)
		p.directory.users[name] = user{e, []byte(hash)}
	}
}

func (p *parser) certificate(item *yaml.Node, e *entry) {
	for _, prefix := range []string{"CN=", "DNS:", "URI:", "EMAIL:"} {
		if name, ok := strings.CutPrefix(item.Value, prefix); ok && name != "" {
			if prefix == "DNS:" {
				name = strings.ToLower(name)
			}
			if p.once(item, "certificate", prefix+name) {
				p.directory.certificates[prefix+name] = e
			}
			return
		}
	}
	p.fail(item, "certificates: want CN=, DNS:, URI: or EMAIL: and a name")
}

// limits reads limits on top of those that are there. Whose fate out of the window nobody chose are refused.
func (p *parser) limits(node *yaml.Node, to *Limits, queries *[]override) {
	chosen := p.chosen
	given := map[string]*yaml.Node{}
	p.mapping(node, "limits", func(key string, _, value *yaml.Node) bool {
		given[key] = value
		var err error
		switch key {
		case "push_bytes_per_second":
			err = readBytes(value.Value, &to.PushBytesPerSecond)
		case "push_bytes_burst":
			err = readBytes(value.Value, &to.PushBytesBurst)
		case "pushes_per_second":
			err = readRate(value.Value, &to.PushesPerSecond)
		case "pushes_burst":
			err = readRate(value.Value, &to.PushesBurst)
		case "max_lines_per_push":
			err = readCount(value.Value, &to.MaxLinesPerPush)
		case "max_line_bytes":
			err = readBytes(value.Value, &to.MaxLineBytes)
		case "max_labels":
			err = readCount(value.Value, &to.MaxLabels)
		case "max_label_name_bytes":
			err = readBytes(value.Value, &to.MaxLabelNameBytes)
		case "max_label_value_bytes":
			err = readBytes(value.Value, &to.MaxLabelValueBytes)
		case "max_streams":
			err = readCount(value.Value, &to.MaxStreams)
		case "max_age":
			err = readDuration(value.Value, &to.MaxAge)
		case "max_future":
			err = readDuration(value.Value, &to.MaxFuture)
		case "out_of_window":
			chosen = true
			switch value.Value {
			case "off":
				to.OutOfWindow = Off
			case "reject":
				to.OutOfWindow = Reject
			case "clamp":
				to.OutOfWindow = Clamp
			default:
				err = errors.New("is none of off, reject and clamp")
			}
		default:
			o, known, bad := readOverride(key, value.Value)
			if !known {
				return false
			}
			*queries, err = append(*queries, o), bad
		}
		if err != nil {
			p.fail(value, "%s: %q %v", key, logs.Clip(value.Value), err)
		}
		return true
	})
	less := func(burst, rate string) {
		if at := cmp.Or(given[burst], given[rate]); at != nil {
			p.fail(at, "%s: less than %s", burst, rate)
		}
	}
	if to.PushBytesBurst > 0 && to.PushBytesBurst < to.PushBytesPerSecond {
		less("push_bytes_burst", "push_bytes_per_second")
	}
	if to.PushesBurst > 0 && to.PushesBurst < to.PushesPerSecond {
		less("pushes_burst", "pushes_per_second")
	}
	if p.tenant == "" {
		p.chosen = chosen
	}
	if !chosen && (to.MaxAge > 0 || to.MaxFuture > 0) {
		to.OutOfWindow = Reject
	}
}

// readOverride reads a limit of queries, if the key is that of one.
func readOverride(key, text string) (o override, known bool, err error) {
	switch key {
	case "query_timeout":
		o, err = overrideOf(text, readDuration, 1, func(l *QueryLimits) *time.Duration { return &l.Timeout })
	case "query_max_entries":
		o, err = overrideOf(text, readCount, 0, func(l *QueryLimits) *int { return &l.MaxEntries })
	case "query_max_range":
		o, err = overrideOf(text, readDuration, 0, func(l *QueryLimits) *time.Duration { return &l.MaxRange })
	case "query_max_series":
		o, err = overrideOf(text, readCount, 1, func(l *QueryLimits) *int { return &l.MaxSeries })
	case "query_max_bytes":
		o, err = overrideOf(text, readBytes[int64], 0, func(l *QueryLimits) *int64 { return &l.MaxBytes })
	case "query_max_memory":
		o, err = overrideOf(text, readBytes[int64], 1, func(l *QueryLimits) *int64 { return &l.MaxMemory })
	case "query_concurrency":
		o, err = overrideOf(text, readCount, 1, func(l *QueryLimits) *int { return &l.Concurrency })
	case "tail_max_connections":
		o, err = overrideOf(text, readCount, 1, func(l *QueryLimits) *int { return &l.MaxTails })
	default:
		return nil, false, nil
	}
	return o, true, err
}

// overrideOf reads the value of one limit.
func overrideOf[N int | int64 | time.Duration](text string, read func(string, *N) error, least N, field func(*QueryLimits) *N) (override, error) {
	var value N
	err := read(text, &value)
	if err == nil && value < least {
		err = errors.New("can't be: there has to be a limit")
	}
	return func(to *QueryLimits) { *field(to) = value }, err
}

func readBytes[N int | int64](text string, to *N) error {
	var size config.Bytes
	if err := size.UnmarshalText([]byte(text)); err != nil {
		return errors.New("is not a size such as 64MiB")
	}
	*to = N(size)
	return nil
}

func readRate(text string, to *float64) error {
	rate, err := strconv.ParseFloat(text, 64)
	if err != nil || !(rate >= 0 && rate <= 1e12) {
		return errors.New("is not a number such as 100")
	}
	*to = rate
	return nil
}

func readCount(text string, to *int) error {
	count, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return errors.New("is not a whole number such as 100")
	}
	*to = int(count)
	return nil
}

func readDuration(text string, to *time.Duration) error {
	duration, err := time.ParseDuration(text)
	if err != nil || duration < 0 {
		return errors.New("is not a duration such as 72h")
	}
	*to = duration
	return nil
}
