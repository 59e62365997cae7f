// Package command is the logthra command: its roles, which run the pipeline or a part of it, and its tools.
// Each is a file; all they do is wire.
package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/casteloig/logthra/command/bench"
	"github.com/casteloig/logthra/shared/config"
	"github.com/casteloig/logthra/shared/telemetry"
)

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

type cli struct {
	Config      kong.ConfigFlag  `placeholder:"FILE" help:"A YAML file of flags, as in \"flush-interval: 10s\". In the environment every flag is LOGTHRA_<FLAG>, as in LOGTHRA_FLUSH_INTERVAL; it beats the file, and the flag beats both."`
	LogLevel    slog.Level       `default:"info" placeholder:"LEVEL" help:"Least level that is logged: debug, info, warn or error."`
	LogFormat   string           `default:"text" enum:"text,json" placeholder:"FORMAT" help:"Format of the log: text or json."`
	ShowVersion kong.VersionFlag `name:"version" env:"-" help:"Show the version."`

	Run        runCommand        `cmd:"" default:"withargs" group:"Roles:" help:"Run everything in one process tree, on embedded engines where none are named. The default."`
	Gateway    gatewayCommand    `cmd:"" group:"Roles:" help:"Run a gateway alone: takes pushes, and answers once they are in the WAL."`
	Ingester   ingesterCommand   `cmd:"" group:"Roles:" help:"Run an ingester alone: lands the WAL in ClickHouse. Several share the shards."`
	Nats       natsCommand       `cmd:"" group:"Roles:" help:"Run an embedded NATS alone."`
	Clickhouse clickhouseCommand `cmd:"" group:"Roles:" help:"Run an embedded ClickHouse alone."`
	Push       pushCommand       `cmd:"" group:"Tools:" help:"Push the lines of files, or of standard input."`
	Query      queryCommand      `cmd:"" group:"Tools:" help:"Find lines, or count them, with LogQL."`
	Tail       tailCommand       `cmd:"" group:"Tools:" help:"Follow lines while they are pushed."`
	Labels     labelsCommand     `cmd:"" group:"Tools:" help:"List the labels that there are, or the values of one."`
	Series     seriesCommand     `cmd:"" group:"Tools:" help:"List the streams that there are, by their labels."`
	Bench      benchCommand      `cmd:"" group:"Tools:" help:"Measure how fast lines are taken and queries answered, by this or by anything else with the API of Loki."`
	Status     statusCommand     `cmd:"" group:"Tools:" help:"Show how far the shards are, and who owns them."`
	Audit      auditCommand      `cmd:"" group:"Tools:" help:"Compare what the WAL holds with what the table holds; the exit code tells."`
	Replay     replayCommand     `cmd:"" group:"Tools:" help:"Insert from the WAL what the table has lost, and only that."`
	Deadletter deadletterCommand `cmd:"" group:"Tools:" help:"List, show, retry or drop the records that were put aside."`
	Shards     shardsCommand     `cmd:"" group:"Tools:" help:"Raise the number of shards of the WAL."`
	Tenant     tenantCommand     `cmd:"" group:"Tools:" help:"Make tokens and hashes for a file of tenants, and check one."`
	Ready      readyCommand      `cmd:"" group:"Tools:" help:"Ask a gateway or an ingester whether it is ready, for health checks; the exit code tells."`
	Version    versionCommand    `cmd:"" group:"Tools:" help:"Show the version."`
}

// environment is what every role and tool is given.
type environment struct {
	ctx     context.Context // ends with the first SIGTERM or ^C
	log     *slog.Logger
	version string
}

// garbagePercent is how much garbage may pile up beside what is in use before it is collected. What a role holds is lines, in
// which there is nothing to look for: to collect twice as often as Go does by itself costs next to nothing, and saves a
// quarter of the memory.
const garbagePercent = 50

// Main runs the command with its arguments and returns the exit code.
func Main(version string, args []string) int {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	version = versionOf(version)
	var flags cli
	parser, err := newParser(&flags, version)
	if err != nil {
		fmt.Fprintln(os.Stderr, "logthra:", err)
		return exitFailure
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "logthra:", err)
		fmt.Fprintln(os.Stderr, "logthra --help lists the roles and tools, logthra <one of them> --help its flags.")
		return exitUsage
	}
	log, err := telemetry.Logger(os.Stderr, flags.LogFormat, flags.LogLevel)
	if err != nil {
		fmt.Fprintln(os.Stderr, "logthra: --log-format:", err)
		return exitUsage
	}
	ctx, stop := untilSignal()
	defer stop()
	err = parsed.Run(&environment{ctx: ctx, log: log, version: version})
	if err != nil && !errors.Is(err, errReported) {
		fmt.Fprintln(os.Stderr, "logthra:", err)
	}
	if err != nil {
		return exitFailure
	}
	return 0
}

// untilSignal returns a context that ends with the first SIGTERM or ^C. By then a second one is not caught any
// more and ends the process at once, however long its end in good order would take.
func untilSignal() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	go func() { // ends with the process, or when ctx is canceled
		select {
		case <-signals:
		case <-ctx.Done():
		}
		signal.Stop(signals)
		cancel()
	}()
	return ctx, cancel
}

// newParser returns the parser of the command line, the environment and the configuration file.
func newParser(flags *cli, version string) (*kong.Kong, error) {
	return kong.New(flags,
		kong.Name("logthra"),
		kong.Description("A log pipeline that can be trusted with every line: on disk before it answers, exactly once in ClickHouse. Alone, as logthra run, it runs everything on this machine."),
		kong.Vars{
			"version":   "logthra " + version,
			"protocols": strings.Join(bench.Protocols(), ","),
			"encodings": strings.Join(bench.Encodings, ","),
			"questions": strings.Join(bench.QuestionNames(), ", "),
		},
		kong.DefaultEnvars("LOGTHRA"),
		kong.Configuration(config.YAML),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}),
		kong.ValueFormatter(helpOf),
	)
}

// helpOf is the help of a flag: what it means, and its default.
func helpOf(value *kong.Value) string {
	if !value.HasDefault || value.Default == "" {
		return value.Help
	}
	return value.Help + " Default " + value.Default + "."
}

// errReported ends a tool that has said already what went wrong.
var errReported = errors.New("reported")

// versionOf is the version that the linker set, or else that of the module or the commit it was built from.
func versionOf(linked string) string {
	if linked != "" {
		return linked
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return strings.Trim(info.Main.Version, "()") // (devel) where there is no commit to name, as under go run
}

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run(env *environment) error {
	fmt.Println("logthra", env.version)
	return nil
}
