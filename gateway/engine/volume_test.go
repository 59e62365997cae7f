package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestIndexStats(t *testing.T) {
	f := pushStreams(t)
	for _, c := range []struct {
		name  string
		scope Scope
		want  IndexStats
	}{
		{"all", scope(t, ""), IndexStats{Streams: 4, Chunks: 5, Bytes: 3 + 5 + 13 + 5 + 6, Entries: 5}},
		{"of a selector", scope(t, `{app="api"}`), IndexStats{Streams: 2, Chunks: 3, Bytes: 3 + 5 + 5, Entries: 3}},
		{"of a time", Scope{Tenant: "acme", Start: second(10), End: second(20)}, IndexStats{Streams: 1, Chunks: 1, Bytes: 3, Entries: 1}},
		{"of another tenant", Scope{Tenant: "other", Start: second(0), End: second(60)}, IndexStats{Streams: 2, Chunks: 2, Bytes: 18, Entries: 2}},
		{"none", scope(t, `{app="secret"}`), IndexStats{}},
	} {
		if got, err := f.IndexStats(t.Context(), c.scope); err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
}

// What lands between two questions is counted once by both.
func TestIndexStatsWhileRowsLand(t *testing.T) {
	f := start(t)
	for i := range 20 {
		f.push(t, "acme", line{`app="api"`, second(i), "line", nil})
		if i%3 == 0 {
			f.land(t, i%shards)
		}
		if got, err := f.IndexStats(t.Context(), scope(t, `{app="api"}`)); err != nil || got.Entries != uint64(i+1) || got.Bytes != uint64(4*(i+1)) {
			t.Fatalf("after %d pushes: %+v, %v", i+1, got, err)
		}
	}
}

func TestVolume(t *testing.T) {
	f := pushStreams(t)
	for _, c := range []struct {
		name string
		q    VolumeQuery
		want string
	}{
		{"by the labels of the selector", VolumeQuery{Scope: scope(t, `{app=~".+", env="prod"}`)}, `{app="db", env="prod"} 3600:13
{app="api", env="prod"} 3600:8
{app="web", env="prod"} 3600:6`},
		{"by all labels", VolumeQuery{Scope: scope(t, "")}, `{app="db", env="prod", quote="a\"b\\c", shard="0"} 3600:13
{app="api", env="prod", pod="api-1"} 3600:8
{app="web", env="prod", region="eu"} 3600:6
{app="api", env="dev", pod="api-2"} 3600:5`},
		{"by other labels", VolumeQuery{Scope: scope(t, `{app=~".+"}`), TargetLabels: []string{"env"}}, `{env="prod"} 3600:27
{env="dev"} 3600:5`},
		{"the largest", VolumeQuery{Scope: scope(t, `{app=~".+"}`), Limit: 2}, `{app="api"} 3600:13
{app="db"} 3600:13`},
		{"by a label that not all have", VolumeQuery{Scope: scope(t, `{app=~".+"}`), TargetLabels: []string{"pod"}}, `{pod="api-1"} 3600:8
{pod="api-2"} 3600:5`},
		{"by name of label", VolumeQuery{Scope: scope(t, `{app=~".+", pod!="api-2"}`), ByLabels: true}, `{app=""} 3600:27
{pod=""} 3600:8`},
		{"by name of any label", VolumeQuery{Scope: scope(t, ""), ByLabels: true}, `{app=""} 3600:32
{env=""} 3600:32
{pod=""} 3600:13
{quote=""} 3600:13
{shard=""} 3600:13
{region=""} 3600:6`},
		{"by steps", VolumeQuery{Scope: Scope{Tenant: "acme", Start: second(10), End: second(45)}, Step: 10e9, TargetLabels: []string{"env"}}, `{env="prod"} 20:3 40:13 45:5
{env="dev"} 30:5`},
		{"of no time", VolumeQuery{Scope: Scope{Tenant: "acme", Start: second(10), End: second(10)}}, ``},
		{"of another tenant", VolumeQuery{Scope: Scope{Tenant: "other", Start: second(0), End: second(60)}, TargetLabels: []string{"app"}}, `{app="secret"} 60:18`},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := f.Volume(t.Context(), c.q)
			must(t, err)
			var got []string
			for _, v := range found {
				text := selectorOf(v.Labels)
				for _, p := range v.Points {
					text += fmt.Sprintf(" %d:%d", (p.Time-second(0))/1e9, p.Bytes)
				}
				got = append(got, text)
			}
			if strings.Join(got, "\n") != c.want {
				t.Errorf("--- got\n%s\n--- want\n%s", strings.Join(got, "\n"), c.want)
			}
		})
	}
}

func TestVolumeIsBounded(t *testing.T) {
	f := pushStreams(t)
	for _, q := range []VolumeQuery{
		{Scope: scope(t, `{app="api"}`), Step: 1},
		{Scope: Scope{Tenant: "acme", Start: -1 << 62, End: 1<<63 - 1}, Step: 1e9},
	} {
		if _, err := f.Volume(t.Context(), q); err == nil {
			t.Error("no error")
		} else if _, ok := errors.AsType[*Error](err); !ok {
			t.Error(err)
		}
	}
}
