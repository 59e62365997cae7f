package gateway

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"sync"
	"testing"

	"google.golang.org/grpc/metadata"
)

// Everything that was pushed at once arrives once, whole and in its order, and tenants do not meet.
func TestManyAtOnce(t *testing.T) {
	const clients, pushes, lines = 32, 9, 20
	f := start(t, func(s *setup) { s.wal.Shards = 4 })
	streamOf := func(client, push int) stream {
		s := stream{labels: map[string]string{"client": fmt.Sprint(client)}}
		for i := range lines {
			n := push*lines + i
			s.entries = append(s.entries, entry{someTime + int64(n), fmt.Sprintf("client %d line %d", client, n), map[string]string{"n": fmt.Sprint(n)}})
		}
		return s
	}
	tenantOf := func(client int) string { return fmt.Sprint("tenant-", client%5) }

	pushOnce := func(ctx context.Context, client, push int) error {
		s, tenant := streamOf(client, push), tenantOf(client)
		var a answer
		var err error
		switch push % 4 {
		case 0:
			a, err = f.try(ctx, http.MethodPost, "/api/push", bytes.NewReader(asJSON(s)), "tenant-id", tenant)
		case 1:
			a, err = f.try(ctx, http.MethodPost, "/loki/api/v1/push", bytes.NewReader(asSnappy(s)), "X-Scope-OrgID", tenant, "Content-Type", protoType)
		case 2:
			a, err = f.try(ctx, http.MethodPost, "/api/push", bytes.NewReader(asSnappy(s)[:50]), "tenant-id", tenant, "Content-Type", protoType)
			if err == nil && a.Status != http.StatusBadRequest {
				return fmt.Errorf("%d for a push that is cut short", a.Status)
			}
			fallthrough
		default:
			_, err = f.rpc.Push(metadata.AppendToOutgoingContext(ctx, "tenant-id", tenant), asRequest(s))
			return err
		}
		if err == nil && a.Status != http.StatusNoContent {
			err = fmt.Errorf("%d: %+v", a.Status, a.refusal)
		}
		return err
	}
	var wait sync.WaitGroup
	for client := range clients {
		wait.Go(func() {
			for push := range pushes {
				if err := pushOnce(t.Context(), client, push); err != nil {
					t.Errorf("client %d, push %d: %v", client, push, err)
				}
			}
		})
	}
	wait.Wait()

	want := map[string][]row{} // by the first line of a push
	for client := range clients {
		for push := range pushes {
			rows := rowsOf(tenantOf(client), streamOf(client, push))
			want[rows[0].Line] = rows
		}
	}
	for _, rows := range f.landed(t) {
		first := rows[0].Line
		if want[first] == nil {
			t.Fatalf("%q landed twice, or was never pushed", first)
		}
		sameRows(t, rows, want[first])
		delete(want, first)
	}
	if len(want) > 0 {
		t.Errorf("%d pushes did not land", len(want))
	}
	f.wantIdle(t)
}
