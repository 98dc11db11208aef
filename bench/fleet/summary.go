package main

import (
	"math"
	"sort"
)

// figures describe many values.
type figures struct {
	N    int     `json:"n"`
	Min  float64 `json:"min"`
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
	Mean float64 `json:"mean"`
}

// summary sorts the values and returns their figures. A percentile is the least value such that this share is not above it.
func summary(values []float64) figures {
	n := len(values)
	if n == 0 {
		return figures{}
	}
	sort.Float64s(values)
	sum := 0.0
	for _, v := range values {
		sum += v
	}
	rank := func(p float64) float64 { return values[max(0, int(math.Ceil(p*float64(n)))-1)] }
	return figures{n, values[0], rank(0.5), rank(0.99), values[n-1], sum / float64(n)}
}
