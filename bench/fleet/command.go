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

// command is a line of input. A key that is left out is nil or 0, which means the default in `keys`.
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
	maxProxies = 1_000_000
	day        = 86_400 // seconds; the longest wait
)

// keys are the keys of commands in the order of the help text, each with its meaning and its default.
var keys = []struct{ name, text string }{
	{"group", `name of the proxies that are opened together; "", which is a valid name`},
	{"n", "number of proxies"},
	{"variant", "delta or sotw; delta"},
	{"cluster", "the nodes' cluster; bench"},
	{"metadata", "the nodes' metadata, an object of strings; none"},
	{"rate", "connections a second; 0, which opens all at once"},
	{"retry_ms", "the limit of the first wait after a connection broke, doubled up to 30 s; 500"},
	{"keep", "tell the server on a new stream what is held from the one before; true"},
	{"nack", "refuse responses once in sync; false"},
	{"mute", "never ACK; false"},
	{"slow_ms", "read at most 4 KiB in each period of this length; 0, which reads everything at once"},
	{"name", "the RouteConfiguration that will change; any resource"},
	{"contains", "a text that it will contain; any"},
	{"from_ns", "the start of measured times; by default the open command for wait_synced, and the start of the clock for result"},
	{"timeout", "the longest wait; 60"},
	{"quiet_ms", "answer only after this time without a response to any proxy; 100"},
	{"fraction", "share of the group to wait for; 1"},
	{"now", "answer without such a time; false"},
}

// verb is a command. `do` is called with an existing group, unless the verb has no group or opens it.
type verb struct {
	name string
	keys []string
	text string
	do   func(*fleet, command) answer
}

var verbs = []verb{
	{
		"open", []string{"n", "group", "variant", "cluster", "metadata", "rate", "retry_ms", "keep", "nack", "mute", "slow_ms"},
		"starts n proxies as a group", (*fleet).open,
	},
	{
		"behave", []string{"group", "nack", "mute", "slow_ms"},
		"changes how a group behaves; keys that are left out change nothing. A proxy that is no longer mute ACKs what came meanwhile",
		(*fleet).behave,
	},
	{"reopen", []string{"group", "keep", "rate"}, "closes all connections of a group, and opens new ones", (*fleet).reopen},
	{"keep", []string{"group", "keep"}, "changes what a group tells the server on new streams; waits before a reconnect begin with the shortest again", (*fleet).keep},
	{"close", []string{"group"}, "closes and forgets a group", (*fleet).close},
	{
		"wait_synced", []string{"group", "from_ns", "timeout", "quiet_ms", "fraction", "now"},
		"answers once a group is in sync: it has all resources that it asks for; ok is false after the timeout", (*fleet).waitSynced,
	},
	{"watch", []string{"name", "contains"}, "resets the counters, and watches the following responses for a change", (*fleet).watch},
	{
		"result", []string{"group", "from_ns", "timeout", "quiet_ms", "fraction", "now"},
		"answers once a group has received and, unless it is mute or refuses, ACKed the watched change; ok is false after the timeout", (*fleet).result,
	},
	{"stats", nil, "returns the number of connections, and the cost of this program", (*fleet).stats},
	{"quit", nil, "ends", nil},
}

// read returns the command of a line, and its verb. The error says what is wrong, and what is allowed.
func read(line []byte) (command, verb, error) {
	var c command
	var values map[string]json.RawMessage
	if err := json.Unmarshal(line, &values); err != nil || values == nil {
		return c, verb{}, errors.New(`a line must be one JSON object, like {"cmd":"stats"}`)
	}
	if err := json.Unmarshal(values["cmd"], &c.Cmd); err != nil {
		return c, verb{}, errors.New(`"cmd" is missing, or not a string; there are ` + verbNames())
	}
	at := slices.IndexFunc(verbs, func(v verb) bool { return v.name == c.Cmd })
	if at < 0 {
		return c, verb{}, fmt.Errorf("there is no command %q; there are %s", c.Cmd, verbNames())
	}
	v := verbs[at]
	for key := range values {
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

func verbNames() string {
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

// check returns an error for the first value that is not allowed.
func (c *command) check() error {
	if c.Cmd == "open" && (c.N < 1 || c.N > maxProxies) {
		return fmt.Errorf(`"n" must be from 1 to %d`, maxProxies)
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
	for _, bound := range []struct {
		key        string
		value, max float64
	}{
		{"rate", c.Rate, 1e9},
		{"retry_ms", float64(c.RetryMs), 30_000},
		{"slow_ms", float64(slow), day * 1000},
		{"from_ns", float64(c.FromNs), math.MaxInt64},
		{"timeout", c.Timeout, day},
		{"quiet_ms", float64(c.QuietMs), day * 1000},
		{"fraction", c.Fraction, 1},
	} {
		if bound.value < 0 || bound.value > bound.max {
			return fmt.Errorf("%q must be from 0 to %.0f", bound.key, bound.max)
		}
	}
	return nil
}
