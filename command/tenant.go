package command

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/crypto/bcrypt"
	"golang.org/x/term"

	"github.com/casteloig/logthra/gateway/tenant"
)

type tenantCommand struct {
	Token tenantTokenCommand `cmd:"" help:"Make a token: print it, and below it the hash for the file of tenants."`
	Hash  tenantHashCommand  `cmd:"" help:"Read a password, or a token, from standard input and print its hash for the file of tenants."`
	Check tenantCheckCommand `cmd:"" help:"Check a file of tenants; the exit code tells."`
}

// tokenPrefix begins the tokens that are made here, so that whoever finds one knows what it is.
const tokenPrefix = "lt_"

// maxPassword is the most bytes of a password that bcrypt looks at.
const maxPassword = 72

type tenantTokenCommand struct{}

// Run makes a token.
func (tenantTokenCommand) Run() error {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails, by its documentation
	token := tokenPrefix + base64.RawURLEncoding.EncodeToString(random)
	fmt.Println(token)
	fmt.Println(tokenHash([]byte(token)))
	return nil
}

// tokenHash is a token as a file of tenants has it.
func tokenHash(token []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(token)) }

type tenantHashCommand struct {
	Token bool `help:"It is a token."`
}

// Run hashes.
func (c *tenantHashCommand) Run(env *environment) error {
	secret, err := readSecret(env.ctx)
	if err != nil {
		return err
	}
	if c.Token {
		if len(bytes.Fields(secret)) != 1 || !bytes.Equal(secret, bytes.TrimSpace(secret)) {
			return errors.New("a token has no spaces")
		}
		fmt.Println(tokenHash(secret))
		return nil
	}
	if len(secret) > maxPassword {
		return fmt.Errorf("a password has %d bytes at most; a token may be longer (--token)", maxPassword)
	}
	hash, err := bcrypt.GenerateFromPassword(secret, bcrypt.DefaultCost)
	if err != nil {
		return err
	}
	fmt.Println(string(hash))
	return nil
}

// readSecret reads a line from standard input; from a terminal, without showing it.
func readSecret(ctx context.Context) (secret []byte, err error) {
	const most = 64 << 10
	if stdin := int(os.Stdin.Fd()); term.IsTerminal(stdin) {
		secret, err = prompt(ctx, stdin)
	} else {
		secret, err = io.ReadAll(io.LimitReader(os.Stdin, most+1))
		secret = bytes.TrimSuffix(bytes.TrimSuffix(secret, []byte("\n")), []byte("\r"))
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("standard input: %w", err)
	case len(secret) == 0:
		return nil, errors.New("standard input has no secret")
	case len(secret) > most || bytes.ContainsAny(secret, "\r\n"):
		return nil, errors.New("standard input has more than one line with a secret")
	}
	return secret, nil
}

// prompt reads a line from a terminal without showing it. The terminal shows again what is typed once ctx ends, too.
func prompt(ctx context.Context, terminal int) ([]byte, error) {
	state, err := term.GetState(terminal)
	if err != nil {
		return nil, err
	}
	fmt.Fprint(os.Stderr, "Secret: ")
	defer fmt.Fprintln(os.Stderr)
	type answer struct {
		secret []byte
		err    error
	}
	answers := make(chan answer, 1)
	go func() { // ends with the line, or with the process
		secret, err := term.ReadPassword(terminal)
		answers <- answer{secret, err}
	}()
	select {
	case a := <-answers:
		return a.secret, a.err
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), term.Restore(terminal, state))
	}
}

type tenantCheckCommand struct {
	File string `arg:"" name:"file" help:"The file."`
}

// Run checks.
func (c *tenantCheckCommand) Run() error {
	directory, err := tenant.Load(c.File)
	if _, unread := errors.AsType[*fs.PathError](err); unread {
		return err
	}
	if err != nil {
		fmt.Println(err)
		return errReported
	}
	tenants, credentials := directory.Len()
	fmt.Println(counted(tenants, "tenant") + ", " + counted(credentials, "credential"))
	return nil
}

// counted is a number of things.
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
