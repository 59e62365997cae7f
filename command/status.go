package command

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"

	logthrav1 "github.com/casteloig/logthra/proto/logthra/v1"
	"github.com/casteloig/logthra/shared/config"
)

// statusTimeout bounds how long an ingester may take to answer.
const statusTimeout = 5 * time.Second

type statusCommand struct {
	config.Data `embed:""`
	Ingester    string `placeholder:"ADDR" help:"gRPC address of an ingester; without one, that of the Logthra that runs on the data directory, or 127.0.0.1:9011."`
	JSON        bool   `name:"json" help:"As JSON."`
}

// Run shows the state of all shards.
func (c *statusCommand) Run(env *environment) error {
	address := c.Ingester
	if address == "" {
		addresses, err := readAddresses(c.DataDir)
		if err != nil {
			return err
		}
		address = cmp.Or(addresses["ingester"], "127.0.0.1:9011")
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("--ingester: %w", err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(env.ctx, statusTimeout)
	defer cancel()
	response, err := logthrav1.NewIngesterServiceClient(conn).Status(ctx, &logthrav1.StatusRequest{})
	if err != nil {
		return fmt.Errorf("no ingester answers at %s; if one runs elsewhere, name it with --ingester, or its directory with --data-dir: %s", address, plain(err))
	}
	if c.JSON {
		text, err := protojson.MarshalOptions{EmitUnpopulated: true, UseProtoNames: true}.Marshal(response)
		if err != nil {
			return err
		}
		// protojson varies its white space on purpose.
		var out any
		if err := json.Unmarshal(text, &out); err != nil {
			return err
		}
		return printJSON(os.Stdout, out)
	}
	return printStatus(os.Stdout, response)
}

// plain is the message of a gRPC error, without what the transport wraps around it.
func plain(err error) string {
	message := status.Convert(err).Message()
	if _, dialing, ok := strings.Cut(message, "Error while dialing: "); ok {
		return strings.TrimSuffix(dialing, `"`)
	}
	return message
}

// printStatus writes the status for people.
func printStatus(to io.Writer, response *logthrav1.StatusResponse) error {
	// The last cell of a line is not aligned: the state, which is text, begins after the space.
	out := tabwriter.NewWriter(to, 0, 0, 3, ' ', tabwriter.AlignRight)
	_, _ = fmt.Fprintln(out, "SHARD\tBACKLOG\tBYTES\tOLDEST\tLAST FLUSH\tROWS\tBYTES\tTOOK\tWAL\t   STATE")
	var errors []string
	for _, s := range response.GetShards() {
		age, flush := "-", []string{"-", "-", "-", "-"}
		if s.GetBacklogRecords() > 0 {
			age = short(s.GetOldestUnflushed().AsDuration())
		}
		if f := s.GetLastFlush(); f != nil {
			flush = []string{
				short(time.Since(f.GetTime().AsTime())) + " ago", humanize.Comma(int64(f.GetRows())),
				humanize.IBytes(f.GetBytes()), short(f.GetDuration().AsDuration()),
			}
		}
		full := 100 * float64(s.GetWalBytes()) / float64(max(s.GetWalMaxBytes(), 1))
		state := s.GetState()
		switch {
		case s.GetOwner() == "":
			state = "no owner"
		case state == "":
			state = "owned by " + s.GetOwner()
		}
		_, _ = fmt.Fprintf(out, "%d\t%s\t%s\t%s\t%s\t%.0f%%\t   %s\n", s.GetShard(), humanize.Comma(int64(s.GetBacklogRecords())),
			humanize.IBytes(s.GetBacklogBytes()), age, strings.Join(flush, "\t"), full, state)
		if s.GetError() != "" {
			errors = append(errors, fmt.Sprintf("shard %d: %s", s.GetShard(), s.GetError()))
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	for _, e := range errors {
		_, _ = fmt.Fprintln(to, e)
	}
	_, _ = fmt.Fprintf(to, "\ningester %s, %s, up %s\n", response.GetIngester(), response.GetVersion(), short(time.Since(response.GetStarted().AsTime())))
	names := slices.Sorted(maps.Keys(response.GetAddresses()))
	addresses := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	for _, name := range names {
		_, _ = fmt.Fprintf(addresses, "  %s\t%s\n", name, response.GetAddresses()[name])
	}
	return addresses.Flush()
}

// short is a duration as people say it, in two units at most: 1d3h, 2h5m, 1m30s, 12s, 1.5s, 20ms.
func short(d time.Duration) string {
	const day = 24 * time.Hour
	unit := time.Second
	switch d = max(d, 0); {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= day:
		unit = time.Hour
	case d >= time.Hour:
		unit = time.Minute
	}
	d = d.Round(unit)
	var b strings.Builder
	for _, part := range []struct {
		count time.Duration
		unit  string
	}{{d / day, "d"}, {d % day / time.Hour, "h"}, {d % time.Hour / time.Minute, "m"}, {d % time.Minute / time.Second, "s"}} {
		if part.count > 0 {
			fmt.Fprintf(&b, "%d%s", part.count, part.unit)
		}
	}
	return b.String()
}

type readyCommand struct {
	config.Client `embed:""`
	URL           string `name:"url" default:"http://127.0.0.1:3100" placeholder:"URL" help:"The HTTP of a gateway or an ingester."`
}

// Run asks.
func (c *readyCommand) Run(env *environment) error {
	ctx, cancel := context.WithTimeout(env.ctx, statusTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, withScheme(c.URL), nil)
	if err != nil {
		return fmt.Errorf("--url: %w", err)
	}
	if strings.Trim(request.URL.Path, "/") == "" {
		request.URL.Path = "/ready"
	}
	client, err := c.Client.Client()
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, 4<<10))
	if err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s: %s", response.Status, bytes.TrimSpace(text))
	}
	return nil
}
