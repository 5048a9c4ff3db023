package monitor

import "math"

// process is the evidence against a null hypothesis: a non-negative supermartingale that begins at
// 1 where the null holds, so that it ever reaches 1/a in at most a share a of lives (Ville 1939).
//
// It bets on numbers whose mean is at most 0 under the null: a bet b multiplies its capital by
// 1 + b·x. One long product would drain while all is well and find a change late. So each number
// begins a new product of a weight, and what has not been invested is cash. The weights sum to 1
// over all time: 1 / (1 + ln(1+n)) is left after n numbers, so that a change costs the logarithm of
// the time before it only.
type process struct {
	sides    []side
	n        int64
	cash     float64
	parts    float64 // number of bets of all sides
	evidence float64
}

// side has the bets on one number. Each is so small that no factor 1 + b·x is negative.
type side struct {
	bets    []float64
	capital []float64
}

// mostEvidence keeps evidence finite: an alarm has long been raised, and less is valid, too.
const mostEvidence = 1e300

func newProcess(bets ...[]float64) *process {
	p := &process{cash: 1, evidence: 1}
	for _, b := range bets {
		p.sides = append(p.sides, side{b, make([]float64, len(b))})
		p.parts += float64(len(b))
	}
	return p
}

// betsBelow returns bets spread from the greatest that is taken down to an eightieth of it.
func betsBelow(greatest float64) []float64 {
	return []float64{
		greatest, 0.4 * greatest, 0.16 * greatest, 0.064 * greatest, 0.0256 * greatest,
		0.0125 * greatest,
	}
}

// add bets on one number a side and returns the evidence.
func (p *process) add(numbers ...float64) float64 {
	p.n++
	cash := cashAfter(p.n)
	weight := (p.cash - cash) / p.parts
	p.cash = cash
	total := cash
	for i, x := range numbers {
		bets, capital := p.sides[i].bets, p.sides[i].capital
		capital = capital[:len(bets)]
		for k, bet := range bets {
			c := min((capital[k]+weight)*(1+bet*x), mostEvidence)
			capital[k] = c
			total += c
		}
	}
	p.evidence = total
	return total
}

// cashAfter is what n numbers leave uninvested.
func cashAfter(n int64) float64 { return 1 / (1 + math.Log1p(float64(n))) }

// strongest returns the side with the most capital.
func (p *process) strongest() int {
	best, most := 0, -1.0
	for i, s := range p.sides {
		sum := 0.0
		for _, c := range s.capital {
			sum += c
		}
		if sum > most {
			best, most = i, sum
		}
	}
	return best
}
