package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
)

// command is what a line may say. What is left out is nil or 0, which stands for the default that `keys` names.
type command struct {
	Cmd   string `json:"cmd"`
	Group string `json:"group"`

	N        int               `json:"n"`
	Variant  string            `json:"variant"`
	Rate     float64           `json:"rate"`
	Cluster  string            `json:"cluster"`
	Metadata map[string]string `json:"metadata"`
	RetryMs  int               `json:"retry_ms"`
	Keep     *bool             `json:"keep"`

	Nack   *bool `json:"nack"`
	Mute   *bool `json:"mute"`
	SlowMs *int  `json:"slow_ms"`

	Name     string `json:"name"`
	Contains string `json:"contains"`

	FromNs   int64   `json:"from_ns"`
	Timeout  float64 `json:"timeout"`
	QuietMs  int     `json:"quiet_ms"`
	Fraction float64 `json:"fraction"`
	Now      bool    `json:"now"`
}

const (
	mostProxies = 1_000_000
	day         = 86_400 // seconds; no wait is longer
)

// keys are in the order in which they are told.
var keys = []struct{ name, says string }{
	{"group", `proxies that are opened together; "", which is a name like any other`},
	{"n", "how many"},
	{"variant", "delta or sotw; delta"},
	{"cluster", "the nodes' cluster; bench"},
	{"metadata", "the nodes' metadata, an object of strings; none"},
	{"rate", "connections a second; 0, which is all at once"},
	{"retry_ms", "the limit of the first wait after a connection broke, doubled up to 30 s; 500"},
	{"keep", "a new stream says what is held from the one before; true"},
	{"nack", "refuse what comes once everything is there; false"},
	{"mute", "never ACK; false"},
	{"slow_ms", "read 4 KiB in this time and no more; 0, which is all that comes, at once"},
	{"name", "the RouteConfiguration that will change; any resource"},
	{"contains", "what it will contain; anything"},
	{"from_ns", "when time begins; for wait_synced when the group was told to open, for result the start of the clock"},
	{"timeout", "how long to wait at most; 60"},
	{"quiet_ms", "how long nothing came to any proxy before the answer; 100"},
	{"fraction", "of the group that is waited for; 1"},
	{"now", "don't wait for quiet; false"},
}

// verb is a command. `do` is called with a group that is there, unless the verb is without one or opens it.
type verb struct {
	name string
	keys []string
	says string
	do   func(*fleet, command) answer
}

var verbs = []verb{
	{
		"open", []string{"n", "group", "variant", "cluster", "metadata", "rate", "retry_ms", "keep", "nack", "mute", "slow_ms"},
		"starts n proxies, a group", (*fleet).open,
	},
	{
		"behave", []string{"group", "nack", "mute", "slow_ms"},
		"how a group behaves from now on; what is left out stays as it is. Who is mute no more ACKs what it owes",
		(*fleet).behave,
	},
	{"reopen", []string{"group", "keep", "rate"}, "closes all connections of a group, and opens them anew", (*fleet).reopen},
	{"keep", []string{"group", "keep"}, "what a group says on its next streams; waits begin from the shortest", (*fleet).keep},
	{"close", []string{"group"}, "closes a group for good", (*fleet).close},
	{
		"wait_synced", []string{"group", "from_ns", "timeout", "quiet_ms", "fraction", "now"},
		"answers once a group has all that it asks for; ok is false after the timeout", (*fleet).waitSynced,
	},
	{"watch", []string{"name", "contains"}, "counts anew, and looks for a change in what comes from now on", (*fleet).watch},
	{
		"result", []string{"group", "from_ns", "timeout", "quiet_ms", "fraction", "now"},
		"answers once a group has received and, unless it is mute or refuses, ACKed what is watched for; else ok is false", (*fleet).result,
	},
	{"stats", nil, "how many connections there are, and what this program has cost", (*fleet).stats},
	{"quit", nil, "ends", nil},
}

// read is the command that a line says, and its verb. The error says what is wrong and what is allowed.
func read(line []byte) (command, verb, error) {
	var c command
	var said map[string]json.RawMessage
	if err := json.Unmarshal(line, &said); err != nil || said == nil {
		return c, verb{}, errors.New(`a line must be one JSON object, like {"cmd":"stats"}`)
	}
	if err := json.Unmarshal(said["cmd"], &c.Cmd); err != nil {
		return c, verb{}, errors.New(`"cmd" is missing, or no string; there are ` + known())
	}
	at := slices.IndexFunc(verbs, func(v verb) bool { return v.name == c.Cmd })
	if at < 0 {
		return c, verb{}, fmt.Errorf("there is no command %q; there are %s", c.Cmd, known())
	}
	v := verbs[at]
	for key := range said {
		if key != "cmd" && !slices.Contains(v.keys, key) {
			return c, v, fmt.Errorf("%s has no key %q; it has %s", v.name, key, strings.Join(append([]string{"cmd"}, v.keys...), ", "))
		}
	}
	if err := json.Unmarshal(line, &c); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			key, inside, _ := strings.Cut(wrong.Field, ".")
			if inside != "" || key == "metadata" && wrong.Type.Kind() == reflect.String {
				return c, v, fmt.Errorf("%q has a %s inside; it must be an object of strings", key, wrong.Value)
			}
			return c, v, fmt.Errorf("%q is a %s; it must be %s", key, wrong.Value, needed(wrong.Type.Kind()))
		}
		return c, v, err
	}
	return c, v, c.check()
}

func known() string {
	names := make([]string, len(verbs))
	for i, v := range verbs {
		names[i] = v.name
	}
	return strings.Join(names, ", ")
}

func needed(kind reflect.Kind) string {
	switch kind {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Map:
		return "an object of strings"
	}
	return "a string"
}

// check tells the first value that is not allowed.
func (c *command) check() error {
	if c.Cmd == "open" && (c.N < 1 || c.N > mostProxies) {
		return fmt.Errorf(`"n" must be from 1 to %d`, mostProxies)
	}
	if !slices.Contains([]string{"", "delta", "sotw"}, c.Variant) {
		return fmt.Errorf("there is no variant %q; there are delta and sotw", c.Variant)
	}
	if c.Cmd == "behave" && c.Nack == nil && c.Mute == nil && c.SlowMs == nil {
		return errors.New("behave needs one of nack, mute and slow_ms")
	}
	slow := 0
	if c.SlowMs != nil {
		slow = *c.SlowMs
	}
	for _, value := range []struct {
		key      string
		is, most float64
	}{
		{"rate", c.Rate, 1e9},
		{"retry_ms", float64(c.RetryMs), 30_000},
		{"slow_ms", float64(slow), day * 1000},
		{"from_ns", float64(c.FromNs), math.MaxInt64},
		{"timeout", c.Timeout, day},
		{"quiet_ms", float64(c.QuietMs), day * 1000},
		{"fraction", c.Fraction, 1},
	} {
		if value.is < 0 || value.is > value.most {
			return fmt.Errorf("%q must be from 0 to %.0f", value.key, value.most)
		}
	}
	return nil
}
