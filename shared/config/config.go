// Package config is what the roles and tools are configured with: one struct a concern, whose fields are
// flags of the command. Every flag is also LOGTHRA_<FLAG> in the environment and a key of the YAML file
// that --config names; a flag beats the environment, the environment beats the file.
package config

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"runtime"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/casteloig/logthra/shared/wal"
)

// Bytes is a size, written as 64MiB, 1GB or a plain number of bytes.
type Bytes int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Bytes) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n > math.MaxInt64 {
		return fmt.Errorf("%q is not a size such as 64MiB", text)
	}
	*b = Bytes(n)
	return nil
}

// String writes the size exactly, as UnmarshalText reads it: in the largest unit that divides it.
func (b Bytes) String() string {
	units := [...]string{"", "KiB", "MiB", "GiB", "TiB"}
	unit := 0
	for b != 0 && b%1024 == 0 && unit < len(units)-1 {
		b /= 1024
		unit++
	}
	return strconv.FormatInt(int64(b), 10) + units[unit]
}

// Data is where the embedded engines keep their files.
type Data struct {
	DataDir string `default:"./logthra-data" placeholder:"DIR" help:"Where the embedded engines keep their files, and a running Logthra its addresses."`
}

// NATSServer is where an embedded NATS listens.
type NATSServer struct {
	NATSListen string `name:"nats-listen" default:"127.0.0.1:4222" placeholder:"ADDR" help:"Where an embedded NATS listens."`
}

// ClickHouseServer is how an embedded ClickHouse runs.
type ClickHouseServer struct {
	ClickHouseListen     string `name:"clickhouse-listen" default:"127.0.0.1:9000" placeholder:"ADDR" help:"Where an embedded ClickHouse listens, native protocol."`
	ClickHouseHTTPListen string `name:"clickhouse-http-listen" default:"127.0.0.1:8123" placeholder:"ADDR" help:"Where an embedded ClickHouse listens, HTTP."`
	ClickHouseMemory     Bytes  `name:"clickhouse-memory" default:"2GiB" placeholder:"SIZE" help:"Most memory that an embedded ClickHouse takes."`
}

// Rows is the ClickHouse that has the rows.
type Rows struct {
	ClickHouseDSN     string `name:"clickhouse-dsn" placeholder:"DSN" help:"An existing ClickHouse, clickhouse://user:pass@host:9000/logs; without one, ClickHouse is embedded, and a gateway alone answers no queries."`
	ClickHouseCluster string `name:"clickhouse-cluster" placeholder:"NAME" help:"The cluster of that ClickHouse, in system.clusters, whose shards share the rows; --clickhouse-dsn names some of its servers."`
}

// Validate is called by the command line's parser.
func (r *Rows) Validate() error {
	if r.ClickHouseCluster != "" && r.ClickHouseDSN == "" {
		return errors.New("--clickhouse-cluster: --clickhouse-dsn is needed, too; an embedded ClickHouse is no cluster")
	}
	return nil
}

// ClickHouse is where the rows go, and how.
type ClickHouse struct {
	Rows `embed:""`

	InsertQuorum string        `name:"clickhouse-insert-quorum" default:"auto" placeholder:"N" help:"On how many replicas rows have to be before they count as landed: auto is most of them."`
	Retention    time.Duration `default:"0s" placeholder:"DURATION" help:"How long rows are kept, by the line's own time; 0 keeps them for ever."`
}

// Validate is called by the command line's parser.
func (c *ClickHouse) Validate() error {
	if n, err := strconv.Atoi(c.InsertQuorum); c.InsertQuorum != "auto" && (err != nil || n < 1) {
		return fmt.Errorf("--clickhouse-insert-quorum: %q is neither auto nor a number of replicas", c.InsertQuorum)
	}
	return nil
}

// WAL is how the WAL is made. Gateways and ingesters are to agree on it.
type WAL struct {
	Shards      int           `default:"4" placeholder:"N" help:"Shards of the WAL; can be raised later, never lowered."`
	Replicas    int           `default:"1" placeholder:"N" help:"Copies of each shard in a NATS cluster, 1 to 5; can be raised later, never lowered."`
	WALMaxBytes Bytes         `name:"wal-max-bytes" default:"10GiB" placeholder:"SIZE" help:"Most bytes of all shards; a full WAL refuses pushes with 503."`
	DedupWindow time.Duration `default:"2m" placeholder:"DURATION" help:"How long a repeated push is recognized."`

	PlacementCluster string   `placeholder:"NAME" help:"NATS cluster that the WAL is kept in, where there are several."`
	PlacementTags    []string `placeholder:"TAG" help:"Tags of the NATS servers that the WAL is kept on, with commas between: all of them are wanted."`
}

// Validate is called by the command line's parser.
func (w *WAL) Validate() error {
	const minShardBytes = 1 << 20
	switch {
	case w.Shards < 1 || w.Shards > wal.MaxShards:
		return fmt.Errorf("--shards: 1 to %d are possible", wal.MaxShards)
	case w.Replicas < 1 || w.Replicas > 5:
		return errors.New("--replicas: 1 to 5 are possible")
	case w.DedupWindow < 100*time.Millisecond:
		return errors.New("--dedup-window: at least 100ms is needed")
	case int64(w.WALMaxBytes) < minShardBytes*int64(w.Shards):
		return fmt.Errorf("--wal-max-bytes: at least 1MiB a shard is needed, %s", Bytes(minShardBytes*w.Shards))
	}
	return nil
}

// Placement is the NATS servers that the WAL is kept on; nil: any.
func (w *WAL) Placement() *jetstream.Placement {
	if w.PlacementCluster == "" && len(w.PlacementTags) == 0 {
		return nil
	}
	return &jetstream.Placement{Cluster: w.PlacementCluster, Tags: w.PlacementTags}
}

// Gateway is what a gateway takes, and where.
type Gateway struct {
	HTTPListen       string        `name:"http-listen" default:"127.0.0.1:3100" placeholder:"ADDR" help:"Where the gateway listens, HTTP."`
	GRPCListen       string        `name:"grpc-listen" default:"127.0.0.1:4317" placeholder:"ADDR" help:"Where the gateway listens, gRPC."`
	MaxPushBytes     Bytes         `default:"16MiB" placeholder:"SIZE" help:"Largest push, decompressed; a larger one is refused with 413."`
	MaxLineBytes     Bytes         `default:"256KiB" placeholder:"SIZE" help:"Longest line; a push with a longer one is refused with 400."`
	MaxInflightBytes Bytes         `default:"512MiB" placeholder:"SIZE" help:"Most memory of pushes under way; at it, pushes are refused with 503."`
	PushTimeout      time.Duration `default:"10s" placeholder:"DURATION" help:"How long a push waits for the WAL until it is refused with 503."`
	SyslogListen     []string      `placeholder:"URL" help:"Where the gateway listens for syslog, as in tcp://127.0.0.1:5514?tenant=acme; or tls:// or udp://."`
	SyslogMaxConns   int           `name:"syslog-max-connections" default:"1024" placeholder:"N" help:"Most connections of each listener for syslog; an idle one takes 33 KiB of memory, one that waits for the WAL 300 KiB."`
	TenantsFile      string        `placeholder:"FILE" help:"Credentials and limits of the tenants, YAML; without one, whoever reaches the gateway may push."`
	MetricsTenants   int           `name:"metrics-max-tenants" default:"1000" placeholder:"N" help:"Most tenants that have metrics of their own; all others are counted together, as (other)."`
	DefaultTenant    string        `placeholder:"NAME" help:"Without a file of tenants, who pushes where a push names no tenant; none: it is refused."`
	TLSCertFile      string        `name:"tls-cert-file" placeholder:"FILE" help:"Certificate of the gateway's HTTP, gRPC and syslog over TLS, PEM; read again when it changes."`
	TLSKeyFile       string        `name:"tls-key-file" placeholder:"FILE" help:"Its key, PEM."`
	TLSClientCAFile  string        `name:"tls-client-ca-file" placeholder:"FILE" help:"Authorities whose clients are trusted, PEM."`
	TLSClientAuth    string        `name:"tls-client-auth" default:"require" enum:"require,optional" placeholder:"MODE" help:"Whether clients have to show a certificate of those authorities: require or optional."`
}

// Validate is called by the command line's parser.
func (g *Gateway) Validate() error {
	switch {
	case g.MaxPushBytes < 1 || g.MaxPushBytes > 1<<30:
		return errors.New("--max-push-bytes: 1 byte to 1GiB are possible")
	case g.MaxLineBytes < 1:
		return errors.New("--max-line-bytes: at least 1 byte is needed")
	case g.MaxInflightBytes < 8*g.MaxPushBytes:
		return fmt.Errorf("--max-inflight-bytes: a push of --max-push-bytes needs %s", 8*g.MaxPushBytes)
	case g.PushTimeout <= 0:
		return errors.New("--push-timeout: more than 0 is needed")
	case g.SyslogMaxConns < 1:
		return errors.New("--syslog-max-connections: at least 1 is needed")
	case g.MetricsTenants < 0:
		return errors.New("--metrics-max-tenants: 0 or more is needed")
	case (g.TLSCertFile == "") != (g.TLSKeyFile == ""):
		return errors.New("--tls-cert-file and --tls-key-file: one needs the other")
	case g.TLSClientCAFile != "" && g.TLSCertFile == "":
		return errors.New("--tls-client-ca-file: --tls-cert-file is needed, too")
	case g.DefaultTenant != "" && !wal.ValidTenant(g.DefaultTenant):
		return fmt.Errorf("--default-tenant: %q does not match %s", g.DefaultTenant, wal.TenantPattern)
	case g.DefaultTenant != "" && g.TenantsFile != "":
		return errors.New("--default-tenant: with --tenants-file a credential says who pushes")
	}
	for _, listen := range g.SyslogListen {
		if _, err := ParseSyslog(listen); err != nil {
			return fmt.Errorf("--syslog-listen: %w", err)
		}
	}
	return nil
}

// Syslog is one listener of --syslog-listen.
type Syslog struct {
	Network string // tcp, tls or udp
	Address string // host:port
	Tenant  string // empty where the client's certificate, or --default-tenant, says who it is
}

// ParseSyslog reads a value of --syslog-listen.
func ParseSyslog(text string) (Syslog, error) {
	parsed, err := url.Parse(text)
	if err != nil || parsed.Host == "" || parsed.Path != "" || parsed.User != nil ||
		parsed.Scheme != "tcp" && parsed.Scheme != "tls" && parsed.Scheme != "udp" {
		return Syslog{}, fmt.Errorf("%q is not of the form tcp://host:port?tenant=NAME, or tls:// or udp://", text)
	}
	query := parsed.Query()
	s := Syslog{parsed.Scheme, parsed.Host, query.Get("tenant")}
	if query.Del("tenant"); len(query) > 0 {
		return Syslog{}, fmt.Errorf("%q has a parameter that is not tenant", text)
	}
	if s.Tenant != "" && !wal.ValidTenant(s.Tenant) {
		return Syslog{}, fmt.Errorf("tenant %q does not match %s", s.Tenant, wal.TenantPattern)
	}
	return s, nil
}

// Query is how a gateway answers queries, and within which bounds. Those of a tenant may be others, in the file of tenants.
type Query struct {
	QueryTimeout     time.Duration `default:"1m" placeholder:"DURATION" help:"How long a query may take, the wait for its turn included."`
	QueryMaxEntries  int           `default:"5000" placeholder:"N" help:"Most entries of an answer; 0: no bound."`
	QueryMaxRange    time.Duration `default:"0s" placeholder:"DURATION" help:"Most time that a query may look at; 0: no bound."`
	QueryMaxSeries   int           `default:"500" placeholder:"N" help:"Most series of a metric query."`
	QueryMaxBytes    Bytes         `default:"0" placeholder:"SIZE" help:"Most bytes, uncompressed, that ClickHouse may read for a query; 0: no bound."`
	QueryMaxMemory   Bytes         `default:"1GiB" placeholder:"SIZE" help:"Most memory of a query, in ClickHouse and in the gateway each."`
	QueryConcurrency int           `default:"0" placeholder:"N" help:"Queries that run at a time, the others wait; 0: two for each CPU, and at least 4."`
	QueryPerTenant   int           `name:"query-tenant-concurrency" default:"0" placeholder:"N" help:"Of those, how many may be one tenant's; 0: three of four."`
	QueryMaxQueued   int           `default:"256" placeholder:"N" help:"Most queries of a tenant that wait; more are refused with 429."`
	TailMaxConns     int           `name:"tail-max-connections" default:"200" placeholder:"N" help:"Most tails of a tenant that are open."`
}

// Validate is called by the command line's parser.
func (q *Query) Validate() error {
	switch {
	case q.QueryTimeout <= 0:
		return errors.New("--query-timeout: more than 0 is needed")
	case q.QueryMaxEntries < 0 || q.QueryMaxRange < 0 || q.QueryMaxBytes < 0:
		return errors.New("--query-max-entries, --query-max-range and --query-max-bytes: 0 or more is needed")
	case q.QueryMaxSeries < 1:
		return errors.New("--query-max-series: at least 1 is needed")
	case q.QueryMaxMemory < 1<<20:
		return errors.New("--query-max-memory: at least 1MiB is needed")
	case q.QueryConcurrency < 0 || q.QueryPerTenant < 0:
		return errors.New("--query-concurrency and --query-tenant-concurrency: 0 or more is needed")
	case q.QueryMaxQueued < 1:
		return errors.New("--query-max-queued: at least 1 is needed")
	case q.TailMaxConns < 1:
		return errors.New("--tail-max-connections: at least 1 is needed")
	}
	return nil
}

// Concurrency is how many queries run at a time, and how many of them may be one tenant's.
func (q *Query) Concurrency() (all, tenant int) {
	all, tenant = q.QueryConcurrency, q.QueryPerTenant
	if all == 0 {
		all = max(4, 2*runtime.GOMAXPROCS(0))
	}
	if tenant == 0 {
		tenant = max(1, all*3/4)
	}
	return all, tenant
}

// Ingester is how an ingester batches, and where it is reached.
type Ingester struct {
	IngesterListen     string        `default:"127.0.0.1:9011" placeholder:"ADDR" help:"Where the ingester listens, gRPC: status, flush and drain."`
	IngesterHTTPListen string        `name:"ingester-http-listen" default:"127.0.0.1:9012" placeholder:"ADDR" help:"Where the ingester listens, HTTP: /ready and /metrics."`
	FlushInterval      time.Duration `default:"30s" placeholder:"DURATION" help:"Longest time until a batch of a shard is inserted."`
	FlushRows          int           `default:"500000" placeholder:"N" help:"Most rows of a batch; it is inserted with them."`
	FlushBytes         Bytes         `default:"64MiB" placeholder:"SIZE" help:"Most bytes of a batch, in memory; it is inserted with them."`
	BufferBytes        Bytes         `default:"256MiB" placeholder:"SIZE" help:"Most memory of all batches together."`
	ReplayWindow       time.Duration `default:"72h" placeholder:"DURATION" help:"How long records that have landed stay replayable; less where the WAL needs the room."`
	OwnerTimeout       time.Duration `default:"10s" placeholder:"DURATION" help:"Time within which the others take over the shards of an ingester that is killed, frozen or cut off."`
}

// Validate is called by the command line's parser.
func (i *Ingester) Validate() error {
	switch {
	case i.FlushInterval <= 0 || i.FlushRows < 1 || i.FlushBytes < 1:
		return errors.New("--flush-interval, --flush-rows and --flush-bytes: more than 0 is needed")
	case i.BufferBytes < 1<<20:
		return errors.New("--buffer-bytes: at least 1MiB is needed")
	case i.ReplayWindow < 0:
		return errors.New("--replay-window: 0 or more is needed")
	case i.OwnerTimeout < time.Second:
		return errors.New("--owner-timeout: at least 1s is needed")
	}
	return nil
}

// Drain is how a role ends.
type Drain struct {
	DrainTimeout time.Duration `default:"30s" placeholder:"DURATION" help:"Most time from SIGTERM or ^C until the process ends."`
}

// GatewayDrain is how a process that has a gateway ends.
type GatewayDrain struct {
	Drain `embed:""`

	DrainDelay time.Duration `default:"0s" placeholder:"DURATION" help:"Of that time, how long a gateway that says it is not ready goes on to take pushes, for load balancers to notice."`
}

// Validate is called by the command line's parser.
func (d *GatewayDrain) Validate() error {
	if d.DrainDelay < 0 || d.DrainDelay > d.DrainTimeout/2 {
		return fmt.Errorf("--drain-delay: 0 to half of --drain-timeout are possible, %s", d.DrainTimeout/2)
	}
	return nil
}
