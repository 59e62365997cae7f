package command

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/casteloig/logthra/shared/wal"
)

// shardsTimeout bounds how long raising the number of shards may take.
const shardsTimeout = time.Minute

type shardsCommand struct {
	Set shardsSetCommand `cmd:"" help:"Raise the number of shards of the WAL while everything runs."`
}

type shardsSetCommand struct {
	engines `embed:""`
	Shards  int `arg:"" name:"n" help:"How many there are to be. They are never lowered."`
}

// Validate is called by the command line's parser.
func (c *shardsSetCommand) Validate() error {
	if c.Shards < 1 || c.Shards > wal.MaxShards {
		return fmt.Errorf("<n>: 1 to %d are possible", wal.MaxShards)
	}
	return nil
}

// Run raises the number of shards.
func (c *shardsSetCommand) Run(env *environment) error {
	w, done, err := c.openWAL(env)
	if err != nil {
		return err
	}
	defer done()
	ctx, cancel := context.WithTimeout(env.ctx, shardsTimeout)
	defer cancel()
	before, err := w.SetShards(ctx, c.Shards)
	switch {
	case errors.Is(err, wal.ErrLayoutChanged):
		return fmt.Errorf("%w; see what there is with `logthra status`", err)
	case err != nil:
		return err
	case before == c.Shards:
		fmt.Printf("The WAL has %d shards already.\n", before)
	default:
		fmt.Printf("The WAL has %d shards, before it had %d. Set --shards of the roles to %d as well.\n", c.Shards, before, c.Shards)
	}
	return nil
}
