package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Question is a query that is measured.
type Question struct {
	Name string
	Goal time.Duration // that the median is to keep to
	Note string        // on the goal
	ask  func(begin, end time.Time) (path string, values url.Values)
}

// points is how many a metric query has.
const points = 300

// everything selects all streams of a DataSet.
const everything = `{env=~".+"}`

// Questions are all that are measured, in this order.
var Questions = []Question{
	{"tail", 50 * time.Millisecond, "", entries(`{app="` + JSONApp + `"}`)},
	{"needle", 1500 * time.Millisecond, "150ms with an index", entries(everything + ` |= "` + Needle + `"`)},
	{"count", time.Second, "", metric(`sum by (level) (count_over_time({env="prod"}[1m]))`)},
	{"json", 3 * time.Second, "", metric(`sum by (status) (rate({app="` + JSONApp + `"} | json | status >= 500 [5m]))`)},
	{"labels", 30 * time.Millisecond, "", streams("labels", nil)},
	{"values", 30 * time.Millisecond, "", streams("label/host/values", nil)},
	{"series", 30 * time.Millisecond, "", streams("series", url.Values{"match[]": {everything}})},
}

// QuestionNames are the names of all questions.
func QuestionNames() (names []string) {
	for _, q := range Questions {
		names = append(names, q.Name)
	}
	return names
}

// entries asks for the last hundred entries.
func entries(query string) func(begin, end time.Time) (string, url.Values) {
	return func(begin, end time.Time) (string, url.Values) {
		return "query_range", within(begin, end, url.Values{"query": {query}, "limit": {"100"}, "direction": {"backward"}})
	}
}

// metric asks for points that are spread over all of the time, at multiples of their distance.
func metric(query string) func(begin, end time.Time) (string, url.Values) {
	return func(begin, end time.Time) (string, url.Values) {
		step := end.Sub(begin) / points
		return "query_range", within(begin.Truncate(step).Add(step), end.Truncate(step), url.Values{"query": {query}, "step": {strconv.FormatFloat(step.Seconds(), 'f', -1, 64)}})
	}
}

// streams asks about streams.
func streams(path string, values url.Values) func(begin, end time.Time) (string, url.Values) {
	return func(begin, end time.Time) (string, url.Values) { return path, within(begin, end, values) }
}

// within adds a time to the values of a request.
func within(begin, end time.Time, values url.Values) url.Values {
	all := url.Values{"start": {strconv.FormatInt(begin.UnixNano(), 10)}, "end": {strconv.FormatInt(end.UnixNano(), 10)}}
	maps.Copy(all, values)
	return all
}

// QueryConfig is what is asked, of whom, and how often.
type QueryConfig struct {
	URL        string // http://host:port with a path that comes before /loki, if any
	Client     *http.Client
	Token      string
	Tenant     string
	Begin, End time.Time
	Questions  []Question
	Runs       int                                        // of each question, and one before
	Turns      int                                        // of pushing without questions and with them; 0: nothing is pushed
	Push       func(ctx context.Context) (*Report, error) // pushes what a turn pushes
	Progress   func(what string)                          // is told what is done now
}

// Asked is how a question was answered.
type Asked struct {
	Name   string        `json:"name"`
	Query  string        `json:"query"` // as it was sent, but for the time
	Goal   time.Duration `json:"goal_ns"`
	Note   string        `json:"note,omitempty"`
	First  time.Duration `json:"first_ns"` // the run before the others
	Min    time.Duration `json:"min_ns"`
	Median time.Duration `json:"median_ns"`
	Max    time.Duration `json:"max_ns"`
	Rows   int64         `json:"rows"`  // read, as the last answer's stats have it
	Bytes  int64         `json:"bytes"` // read, as the last answer's stats have it
	Answer string        `json:"answer"`
}

// Met tells whether the goal was kept to.
func (a *Asked) Met() bool { return a.Median <= a.Goal }

// PushGoal is which share of the lines a second is taken at least while questions are asked.
const PushGoal = 0.7

// Pushed is lines a second, as they were answered, of each turn.
type Pushed struct {
	Alone     []float64 `json:"alone"`
	Asking    []float64 `json:"asking"`
	Ratio     float64   `json:"ratio"` // of the medians
	Questions int       `json:"questions"`
}

// QueryReport is what was measured.
type QueryReport struct {
	Begin     time.Time `json:"begin"`
	End       time.Time `json:"end"`
	Questions []*Asked  `json:"questions"`
	Pushed    *Pushed   `json:"pushed,omitempty"`
}

// answer is what came back.
type answer struct {
	took        time.Duration
	rows, bytes int64
	what        string // how much of what
}

// Query asks all questions, and then pushes while it asks them again. It reports what it has measured until ctx ends or an error.
//
// Errors: an answer is none, or has nothing in it; or a push was refused.
func Query(ctx context.Context, cfg QueryConfig) (*QueryReport, error) {
	report := &QueryReport{Begin: cfg.Begin, End: cfg.End}
	for _, q := range cfg.Questions {
		path, values := q.ask(cfg.Begin, cfg.End)
		asked := &Asked{Name: q.Name, Query: path, Goal: q.Goal, Note: q.Note}
		for _, name := range []string{"query", "match[]"} {
			if values.Has(name) {
				asked.Query += " " + values.Get(name)
			}
		}
		var took []time.Duration
		for run := range cfg.Runs + 1 {
			cfg.tell(fmt.Sprintf("%s: run %d of %d", q.Name, run, cfg.Runs))
			a, err := cfg.ask(ctx, path, values)
			if err != nil {
				return report, fmt.Errorf("%s: %w", q.Name, err)
			}
			if run == 0 {
				asked.First = a.took
			} else {
				took = append(took, a.took)
			}
			asked.Rows, asked.Bytes, asked.Answer = a.rows, a.bytes, a.what
		}
		slices.Sort(took)
		asked.Min, asked.Median, asked.Max = took[0], median(took), took[len(took)-1]
		report.Questions = append(report.Questions, asked)
	}
	if cfg.Turns == 0 {
		return report, nil
	}
	pushed, err := cfg.push(ctx)
	if err == nil {
		report.Pushed = pushed
	}
	return report, err
}

func (c *QueryConfig) tell(what string) {
	if c.Progress != nil {
		c.Progress(what)
	}
}

// median is that of sorted values.
func median[T ~int64 | ~float64](sorted []T) T {
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// push takes turns: lines are pushed, and lines are pushed while the questions are asked, one after the other and over again.
func (c *QueryConfig) push(ctx context.Context) (*Pushed, error) {
	pushed := &Pushed{}
	for turn := range c.Turns {
		c.tell(fmt.Sprintf("pushing alone, turn %d of %d", turn+1, c.Turns))
		r, err := c.Push(ctx)
		if err != nil {
			return nil, err
		}
		pushed.Alone = append(pushed.Alone, float64(r.Lines)/r.Answered.Seconds())
		c.tell(fmt.Sprintf("pushing while the questions are asked, turn %d of %d", turn+1, c.Turns))
		if r, err = c.pushAsked(ctx, &pushed.Questions); err != nil {
			return nil, err
		}
		pushed.Asking = append(pushed.Asking, float64(r.Lines)/r.Answered.Seconds())
	}
	slices.Sort(pushed.Alone)
	slices.Sort(pushed.Asking)
	pushed.Ratio = median(pushed.Asking) / median(pushed.Alone)
	return pushed, nil
}

// pushAsked pushes while questions are asked, and counts these.
func (c *QueryConfig) pushAsked(ctx context.Context, questions *int) (r *Report, err error) {
	asking, stop := context.WithCancel(ctx)
	var done sync.WaitGroup
	var failed error
	done.Go(func() {
		for {
			for _, q := range c.Questions {
				path, values := q.ask(c.Begin, c.End)
				if _, err := c.ask(asking, path, values); asking.Err() != nil {
					return
				} else if err != nil {
					failed = fmt.Errorf("%s, while lines were pushed: %w", q.Name, err)
					return
				}
				*questions++
			}
		}
	})
	r, err = c.Push(ctx)
	stop()
	done.Wait()
	return r, errors.Join(err, failed)
}

// Newest is when the newest line of a DataSet is; zero where there is none within the days before now.
func (c *QueryConfig) Newest(ctx context.Context, days int) (time.Time, error) {
	now := time.Now()
	body, err := c.get(ctx, "query_range", within(now.AddDate(0, 0, -days), now.Add(time.Hour), url.Values{
		"query": {`{app="` + JSONApp + `", pod=~".+"}`}, "limit": {"1"}, "direction": {"backward"},
	}))
	if err != nil {
		return time.Time{}, err
	}
	var found struct {
		Data struct {
			Result []struct{ Values [][2]string }
		}
	}
	if err := json.Unmarshal(body, &found); err != nil {
		return time.Time{}, fmt.Errorf("the answer to query_range: %w", err)
	}
	if len(found.Data.Result) == 0 || len(found.Data.Result[0].Values) == 0 {
		return time.Time{}, nil
	}
	ns, err := strconv.ParseInt(found.Data.Result[0].Values[0][0], 10, 64)
	return time.Unix(0, ns).UTC(), err
}

// ask sends a question and waits for all of its answer. One with nothing in it is an error: it would be fast for no good reason.
func (c *QueryConfig) ask(ctx context.Context, path string, values url.Values) (a answer, err error) {
	began := time.Now()
	body, err := c.get(ctx, path, values)
	a.took = time.Since(began)
	if err != nil {
		return a, err
	}
	if path != "query_range" {
		var list struct{ Data []json.RawMessage }
		if err := json.Unmarshal(body, &list); err != nil {
			return a, fmt.Errorf("the answer to %s: %w", path, err)
		}
		a.what = counted(len(list.Data), "value")
		return a, some(len(list.Data), path)
	}
	var found struct {
		Data struct {
			ResultType string
			Result     []struct{ Values []json.RawMessage }
			Stats      struct {
				Summary struct{ TotalLinesProcessed, TotalBytesProcessed int64 }
			}
		}
	}
	if err := json.Unmarshal(body, &found); err != nil {
		return a, fmt.Errorf("the answer to %s: %w", path, err)
	}
	count := 0
	for _, r := range found.Data.Result {
		count += len(r.Values)
	}
	a.rows, a.bytes = found.Data.Stats.Summary.TotalLinesProcessed, found.Data.Stats.Summary.TotalBytesProcessed
	a.what = counted(count, "line") + " of " + counted(len(found.Data.Result), "stream")
	if found.Data.ResultType == "matrix" {
		a.what = fmt.Sprintf("%s of %d series", counted(count, "point"), len(found.Data.Result))
	}
	return a, some(count, path)
}

// counted is how many there are.
func counted(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

func some(n int, path string) error {
	if n == 0 {
		return fmt.Errorf("the answer to %s has nothing in it: is the data set there (--prepare)?", path)
	}
	return nil
}

// get returns the body of an answer.
func (c *QueryConfig) get(ctx context.Context, path string, values url.Values) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(c.URL, "/")+"/loki/api/v1/"+path+"?"+values.Encode(), nil)
	if err != nil {
		return nil, err
	}
	if c.Tenant != "" {
		request.Header.Set("X-Scope-OrgID", c.Tenant)
	}
	if c.Token != "" {
		request.Header.Set("Authorization", "Bearer "+c.Token)
	}
	response, err := c.Client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, strings.TrimSpace(string(body)))
	}
	return body, err
}
