package logql

import "testing"

const benchmarked = `topk(10, sum by (app, status) (rate({app=~"api|web", env="prod"} |= "error" != "health" | json status="response.status", took
	| status >= 500 and took > 250ms or method = "POST" | label_format app="{{.app | ToUpper}}" [5m] offset 1h)))
	/ on (app) group_left () sum by (app) (count_over_time({env="prod"} [5m])) > bool 0.5`

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	b.SetBytes(int64(len(benchmarked)))
	for b.Loop() {
		if _, err := Parse(benchmarked); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkString(b *testing.B) {
	e, err := Parse(benchmarked)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = e.String()
	}
}
