package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"text/template"
	"time"
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
func (s *Store) Migrate(ctx context.Context, retention time.Duration) error {
	files, err := s.migrations()
	if err != nil {
		return err
	}
	for _, statement := range []string{
		"CREATE DATABASE IF NOT EXISTS " + s.database,
		`CREATE TABLE IF NOT EXISTS ` + s.database + `.migration (version UInt32, name String, applied DateTime('UTC') DEFAULT now())
		 ENGINE = ReplacingMergeTree ORDER BY version`,
	} {
		if err := s.conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("ClickHouse: preparing the migrations: %w", plain(err))
		}
	}
	var current uint32
	if err := s.conn.QueryRow(ctx, "SELECT max(version) FROM "+s.database+".migration").Scan(&current); err != nil {
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
			if err := s.conn.Exec(ctx, statement); err != nil {
				return fmt.Errorf("ClickHouse: migration %s: %w", m.name, plain(err))
			}
		}
		if err := s.conn.Exec(ctx, "INSERT INTO "+s.database+".migration (version, name) VALUES (?, ?)", m.version, m.name); err != nil {
			return fmt.Errorf("ClickHouse: recording migration %s: %w", m.name, plain(err))
		}
		s.log.Info("schema migrated", "migration", m.name)
	}
	return s.retain(ctx, retention)
}

// migrations reads the embedded files, in order, with the names of this store filled in.
func (s *Store) migrations() ([]migration, error) {
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
		if err := text.Execute(&filled, struct{ Database string }{s.database}); err != nil {
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
	err := s.conn.QueryRow(wholeAnswer(ctx), "SELECT engine_full FROM system.tables WHERE database = ? AND name = 'log'", s.database).Scan(&table)
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
func (s *Store) retain(ctx context.Context, retention time.Duration) error {
	retention = max(0, retention.Truncate(time.Second))
	current, err := s.tableTTL(ctx)
	switch {
	case err != nil:
		return err
	case retention == 0 && current == "", retention > 0 && current == ttl(retention):
		return nil
	case retention == 0:
		err = s.conn.Exec(ctx, "ALTER TABLE "+s.database+".log REMOVE TTL")
	default:
		err = s.conn.Exec(ctx, "ALTER TABLE "+s.database+".log MODIFY TTL "+ttl(retention))
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
