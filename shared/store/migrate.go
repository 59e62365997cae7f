package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migration is one file of migrations/: its number, its name, and its statements.
type migration struct {
	version    uint32
	name       string
	statements []string
}

// Migrate brings the schema up to this program's version, and the retention of rows to the one given (zero:
// keep for ever). ClickHouse has neither locks nor transactions for this, so each statement of each
// migration can be repeated without harm, and programs that start at once may all run it. A schema newer
// than this program's is left as it is: a newer program has migrated it, in a way that older ones can live with.
//
// On a cluster it is about every server that answers. One that is new, or was away, gets what it lacks from the next
// Migrate, or from the queue of ON CLUSTER.
func (s *Store) Migrate(ctx context.Context, retention time.Duration) error {
	replicated := false
	if s.cluster != nil {
		t, err := s.topology(ctx)
		if err != nil {
			return err
		}
		replicated = t.replicated
	}
	names := s.names(replicated)
	files, err := readMigrations(names)
	if err != nil {
		return err
	}
	hosts, err := s.hosts(ctx)
	if err != nil {
		return err
	}
	for _, statement := range []string{
		"CREATE DATABASE IF NOT EXISTS " + s.database + names.OnCluster,
		`CREATE TABLE IF NOT EXISTS ` + s.database + `.migration` + names.OnCluster + ` (version UInt32, name String, applied DateTime('UTC') DEFAULT now())
		 ENGINE = ReplacingMergeTree ORDER BY version`,
	} {
		if err := s.define(ctx, hosts, names, statement); err != nil {
			return fmt.Errorf("ClickHouse: preparing the migrations: %w", plain(err))
		}
	}
	current, err := s.version(ctx, hosts)
	if err != nil {
		return fmt.Errorf("ClickHouse: reading the version of the schema: %w", plain(err))
	}
	if newest := files[len(files)-1].version; current > newest {
		s.log.Warn("the schema in ClickHouse is newer than this program", "schema", current, "program", newest)
	}
	for _, m := range files {
		if m.version <= current {
			continue
		}
		for _, statement := range m.statements {
			if err := s.define(ctx, hosts, names, statement); err != nil {
				return fmt.Errorf("ClickHouse: migration %s: %w", m.name, plain(err))
			}
		}
		for _, conn := range hosts {
			if err := conn.Exec(ctx, "INSERT INTO "+s.database+".migration (version, name) VALUES (?, ?)", m.version, m.name); err != nil {
				return fmt.Errorf("ClickHouse: recording migration %s: %w", m.name, plain(err))
			}
		}
		s.log.Info("schema migrated", "migration", m.name)
	}
	return s.retain(ctx, retention, func(statement string) error { return s.define(ctx, hosts, names, statement) }, names)
}

// define runs a statement that defines something on all servers: where it says ON CLUSTER, ClickHouse sees to that.
func (s *Store) define(ctx context.Context, hosts []driver.Conn, names names, statement string) error {
	if names.OnCluster != "" {
		ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
			// A server that is away does what is queued for it once it is back.
			"distributed_ddl_output_mode": "none_only_active", "distributed_ddl_task_timeout": int(ddlTimeout / time.Second),
		}))
		return s.conn.Exec(ctx, statement)
	}
	for _, conn := range hosts {
		if err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// ddlTimeout is how long all servers may take to define something.
const ddlTimeout = 3 * time.Minute

// version is that of the server that is furthest behind.
func (s *Store) version(ctx context.Context, hosts []driver.Conn) (uint32, error) {
	oldest := uint32(math.MaxUint32)
	for _, conn := range hosts {
		var version uint32
		if err := conn.QueryRow(ctx, "SELECT max(version) FROM "+s.database+".migration").Scan(&version); err != nil {
			return 0, err
		}
		oldest = min(oldest, version)
	}
	return oldest, nil
}

// names are what the migrations are filled in with.
type names struct {
	Database  string
	Local     string // suffix of the tables that hold rows
	Cluster   string // name of the cluster; empty: there is none
	OnCluster string // clause of a statement that all servers get from each other; empty: each gets it from here
}

func (s *Store) names(replicated bool) names {
	n := names{Database: s.database, Local: s.suffix()}
	if s.cluster != nil {
		n.Cluster = quote(s.cluster.name)
		if replicated {
			n.OnCluster = " ON CLUSTER " + n.Cluster
		}
	}
	return n
}

// quote is a name as ClickHouse reads it, whatever is in it.
func quote(name string) string {
	return "`" + strings.NewReplacer("\\", "\\\\", "`", "\\`").Replace(name) + "`"
}

// Engine is the engine of a table that holds rows. Of a cluster it is the replicated one, where the servers can replicate.
func (n names) Engine(engine string) string {
	if n.OnCluster == "" {
		return engine
	}
	return "Replicated" + engine + "('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')"
}

// readMigrations reads the embedded files, in order, with the names filled in.
func readMigrations(names names) ([]migration, error) {
	paths, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	var all []migration
	for _, path := range paths {
		name := strings.TrimSuffix(strings.TrimPrefix(path, "migrations/"), ".sql")
		number, _, _ := strings.Cut(name, "_")
		version, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("migration %s: the name does not begin with a number: %w", path, err)
		}
		text, err := template.ParseFS(migrations, path)
		if err != nil {
			return nil, fmt.Errorf("migration %s: %w", path, err)
		}
		var filled strings.Builder
		if err := text.Execute(&filled, names); err != nil {
			return nil, fmt.Errorf("migration %s: %w", path, err)
		}
		m := migration{version: uint32(version), name: name}
		for statement := range strings.SplitSeq(filled.String(), ";\n") {
			if statement = strings.TrimSpace(statement); statement != "" {
				m.statements = append(m.statements, statement)
			}
		}
		all = append(all, m)
	}
	return all, nil
}

// maxTTL is the last second that the DateTime of a TTL can hold, less what its arithmetic needs.
var maxTTL = time.Date(2106, 1, 1, 0, 0, 0, 0, time.UTC)

// ttlInterval begins what a TTL adds to the time of a row.
const ttlInterval = " + toIntervalSecond("

// ttl is the expression that keeps rows so long, by the line's own time, as ClickHouse writes it. Times that a
// DateTime can't hold would wrap around, and rows of the far future expire at once; they are clamped first.
func ttl(retention time.Duration) string {
	return fmt.Sprintf("toDateTime(least(greatest(timestamp, toDateTime64('1970-01-01 00:00:00', 9, 'UTC')), toDateTime64('%s', 9, 'UTC')), 'UTC')%s%d)",
		maxTTL.Add(-retention).Format(time.DateTime), ttlInterval, int64(retention/time.Second))
}

// tableTTL returns the TTL of the table as ClickHouse writes it, or "".
func (s *Store) tableTTL(ctx context.Context) (string, error) {
	var table string
	err := s.conn.QueryRow(wholeAnswer(ctx), "SELECT engine_full FROM system.tables WHERE database = ? AND name = ?", s.database, "log"+s.suffix()).Scan(&table)
	if errors.Is(err, sql.ErrNoRows) {
		err = fmt.Errorf("%w: there is none", errSchema)
	}
	if err != nil {
		return "", fmt.Errorf("ClickHouse: reading the retention of %s.log: %w", s.database, plain(err))
	}
	_, clauses, _ := strings.Cut(table, " TTL ")
	expression, _, _ := strings.Cut(clauses, " SETTINGS ")
	return expression, nil
}

// retain sets how long rows are kept.
func (s *Store) retain(ctx context.Context, retention time.Duration, define func(string) error, names names) error {
	retention = max(0, retention.Truncate(time.Second))
	current, err := s.tableTTL(ctx)
	switch {
	case err != nil:
		return err
	case retention == 0 && current == "", retention > 0 && current == ttl(retention):
		return nil
	case retention == 0:
		err = define("ALTER TABLE " + s.rows() + names.OnCluster + " REMOVE TTL")
	default:
		err = define("ALTER TABLE " + s.rows() + names.OnCluster + " MODIFY TTL " + ttl(retention))
	}
	if err != nil {
		return fmt.Errorf("ClickHouse: setting the retention: %w", plain(err))
	}
	return nil
}

// Retention returns how long the table keeps rows, by the line's own time; zero means for ever. It is what the
// table has, which whoever migrated it last has set. A TTL that is not Migrate's is an error: which rows it has
// removed can't be told.
func (s *Store) Retention(ctx context.Context) (time.Duration, error) {
	current, err := s.tableTTL(ctx)
	if err != nil || current == "" {
		return 0, err
	}
	_, interval, _ := strings.Cut(current, ttlInterval)
	seconds, err := strconv.ParseInt(strings.TrimSuffix(interval, ")"), 10, 64)
	if retention := time.Duration(seconds) * time.Second; err == nil && current == ttl(retention) {
		return retention, nil
	}
	return 0, fmt.Errorf("ClickHouse: reading the retention of %s.log: %w: which rows its TTL has removed can't be told, set it with --retention: %s", s.database, errSchema, current)
}
