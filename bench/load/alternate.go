package load

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Sample is what one run of a side showed.
type Sample struct {
	Rate float64       `json:"rate"` // requests answered a second
	P50  time.Duration `json:"p50_ns"`
	P99  time.Duration `json:"p99_ns"`
	CPU  time.Duration `json:"cpu_ns"` // the server's, for each request; 0: not measured
}

// Sample returns the figures of the run that comparisons use.
func (r Result) Sample() Sample {
	s := Sample{P50: r.Latency.P50, P99: r.Latency.P99}
	if r.Elapsed > 0 {
		s.Rate = float64(r.Answered) / r.Elapsed.Seconds()
	}
	if r.Begun > 0 {
		s.CPU = r.serverCPU() / time.Duration(r.Begun)
	}
	return s
}

// Side is one of two things to compare.
type Side struct {
	Name string
	Run  func() (Sample, error)
}

// Ratios are figures of A divided by those of B; 0 where B has none.
type Ratios struct {
	Rate float64 `json:"rate"`
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
	CPU  float64 `json:"cpu"`
}

// Comparison is the outcome of [Alternate].
type Comparison struct {
	NameA     string      `json:"name_a"`
	NameB     string      `json:"name_b"`
	Rounds    [][2]Sample `json:"rounds"` // A and B of each round
	A         Sample      `json:"a"`      // medians, each figure for itself
	B         Sample      `json:"b"`
	OfMedians Ratios      `json:"of_medians"` // A / B
	Pairwise  Ratios      `json:"pairwise"`   // median of the ratios of the rounds: drift of the machine cancels out
}

// Alternate runs a and b n times each, in the order a b, b a, a b, ..., so that
// neither has the better half of a machine that warms up or slows down. n must
// be at least 1; 5 or more is worth reporting. The first error ends it.
func Alternate(n int, a, b Side) (Comparison, error) {
	if n < 1 {
		return Comparison{}, errors.New("cannot compare in less than one round")
	}
	c := Comparison{NameA: a.Name, NameB: b.Name}
	sides := [2]Side{a, b}
	for round := range n {
		var pair [2]Sample
		for k := range sides {
			i := (k + round) % 2
			s, err := sides[i].Run()
			if err != nil {
				return c, fmt.Errorf("round %d of %d, %s: %w", round+1, n, sides[i].Name, err)
			}
			pair[i] = s
		}
		c.Rounds = append(c.Rounds, pair)
	}
	c.A, c.B = c.median(0), c.median(1)
	c.OfMedians = ratios(c.A, c.B)
	each := make([]Ratios, n)
	for i, p := range c.Rounds {
		each[i] = ratios(p[0], p[1])
	}
	c.Pairwise = Ratios{
		Rate: medianBy(each, func(r Ratios) float64 { return r.Rate }),
		P50:  medianBy(each, func(r Ratios) float64 { return r.P50 }),
		P99:  medianBy(each, func(r Ratios) float64 { return r.P99 }),
		CPU:  medianBy(each, func(r Ratios) float64 { return r.CPU }),
	}
	return c, nil
}

// WriteTable writes the comparison for people.
func (c Comparison) WriteTable(w io.Writer) error {
	row := func(name string, s Sample) string {
		return fmt.Sprintf("%-20s %10.1f %10v %10v %10v\n", name, s.Rate, short(s.P50), short(s.P99), s.CPU.Round(100*time.Nanosecond))
	}
	ratio := func(name string, r Ratios) string {
		return fmt.Sprintf("%-20s %10.3f %10.3f %10.3f %10.3f\n", name, r.Rate, r.P50, r.P99, r.CPU)
	}
	text := fmt.Sprintf("%-20s %10s %10s %10s %10s\n", fmt.Sprintf("medians of %d", len(c.Rounds)), "rate/s", "p50", "p99", "cpu/req")
	text += row(c.NameA, c.A) + row(c.NameB, c.B) + ratio("ratio of medians", c.OfMedians) + ratio("median of ratios", c.Pairwise)
	_, err := io.WriteString(w, text)
	return err
}

func (c *Comparison) median(side int) Sample {
	by := func(f func(Sample) float64) float64 {
		return medianBy(c.Rounds, func(p [2]Sample) float64 { return f(p[side]) })
	}
	return Sample{
		Rate: by(func(s Sample) float64 { return s.Rate }),
		P50:  time.Duration(by(func(s Sample) float64 { return float64(s.P50) })),
		P99:  time.Duration(by(func(s Sample) float64 { return float64(s.P99) })),
		CPU:  time.Duration(by(func(s Sample) float64 { return float64(s.CPU) })),
	}
}

func ratios(a, b Sample) Ratios {
	div := func(x, y float64) float64 {
		if y == 0 {
			return 0
		}
		return x / y
	}
	return Ratios{div(a.Rate, b.Rate), div(float64(a.P50), float64(b.P50)), div(float64(a.P99), float64(b.P99)), div(float64(a.CPU), float64(b.CPU))}
}

// medianBy returns the middle value, or the mean of the two in the middle.
func medianBy[T any](list []T, f func(T) float64) float64 {
	v := make([]float64, len(list))
	for i, x := range list {
		v[i] = f(x)
	}
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
