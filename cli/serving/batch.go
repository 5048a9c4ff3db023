package serving

import (
	"math"
	"time"

	"agflow/core/routing"
	"agflow/core/tensor"
)

// passed is what the experts made of a batch.
type passed struct {
	answers            []Answer
	seen               []Observation
	escalated, audited int
	light, heavy       time.Duration
}

// pass sends images [n, C, H, W] through the light expert, and those that escalate or are audited
// through the heavy one.
func (g *generation) pass(images []float32, n int) (p passed, err error) {
	begin := time.Now()
	logits, err := g.experts.Light(images, n)
	if err != nil {
		return passed{}, err
	}
	p.light = time.Since(begin)
	light, err := tensor.NewView(logits, n, g.model.Classes)
	if err != nil {
		return passed{}, err
	}
	router := g.router()
	decided, err := router.Decide(light)
	if err != nil {
		return passed{}, err
	}
	rows, audited := g.chosen(decided)
	begin = time.Now()
	heavy, err := g.askHeavy(images, rows)
	if err != nil {
		return passed{}, err
	}
	p.heavy = time.Since(begin)
	err = g.read(&p, router, light, decided, heavyAnswers{rows, audited, heavy})
	return p, err
}

// chosen returns the rows of the images that the heavy expert is to see, and which of these it sees
// for an audit: images that the light expert answers alone.
func (g *generation) chosen(decided routing.Decisions) (rows []int32, audited []bool) {
	audited = make([]bool, len(decided.Prior))
	for i, escalates := range decided.Escalate {
		audited[i] = g.watch != nil && g.watch.Audit(decided.Prior[i], escalates)
		if escalates || audited[i] {
			rows = append(rows, int32(i))
		}
	}
	return rows, audited
}

// heavyAnswers are the heavy expert's logits [len(rows), K] for rows of a batch, and which images
// of the batch are audited.
type heavyAnswers struct {
	rows    []int32
	audited []bool
	logits  []float32
}

func (g *generation) askHeavy(images []float32, rows []int32) ([]float32, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	size := g.model.size()
	compacted := make([]float32, 0, len(rows)*size)
	for _, row := range rows {
		compacted = append(compacted, images[int(row)*size:(int(row)+1)*size]...)
	}
	return g.experts.Heavy(compacted, rows)
}

// read makes the answers of a batch.
func (g *generation) read(
	p *passed, router routing.Router, light tensor.View, decided routing.Decisions, h heavyAnswers,
) error {
	k := g.model.Classes
	var escalated []float32
	heavyOf := map[int][]float32{}
	for at, row := range h.rows {
		heavyOf[int(row)] = h.logits[at*k : (at+1)*k]
		if decided.Escalate[row] {
			escalated = append(escalated, heavyOf[int(row)]...)
		}
	}
	heavy, err := tensor.NewView(escalated, len(escalated)/k, k)
	if err != nil {
		return err
	}
	answered, err := router.Answer(light, heavy)
	if err != nil {
		return err
	}
	lightLogits, _ := tensor.Elements[float32](light)
	for i := range answered.Prediction {
		a := Answer{
			ID: g.ids.next(), Class: int(answered.Prediction[i]), Prior: answered.Prior[i],
			Expert: "light", Logits: lightLogits[i*k : (i+1)*k], Audited: h.audited[i],
			Cost: g.model.cost(heavyOf[i] != nil),
		}
		seen := Observation{
			ID: a.ID, Prior: a.Prior, Escalated: decided.Escalate[i], Audited: a.Audited,
			Light: int(decided.Prediction[i]), Heavy: -1,
		}
		if heavyOf[i] != nil {
			seen.Heavy = greatest(heavyOf[i])
		}
		if seen.Escalated {
			p.escalated++
			if a.Expert, a.Logits, err = finalLogits(router, a.Logits, heavyOf[i]); err != nil {
				return err
			}
		} else if a.Audited {
			p.audited++
		}
		a.Probability = probability(a.Logits, a.Class)
		p.answers, p.seen = append(p.answers, a), append(p.seen, seen)
	}
	return nil
}

// finalLogits are those of the answer to an image that escalates.
func finalLogits(
	router routing.Router, light, heavy []float32,
) (expert string, logits []float32, err error) {
	if router.Answers != routing.EnsembleAnswers {
		return "heavy", heavy, nil
	}
	views := [2]tensor.View{}
	for i, logits := range [][]float32{light, heavy} {
		if views[i], err = tensor.NewView(logits, 1, len(logits)); err != nil {
			return "", nil, err
		}
	}
	logits, err = routing.Combine(views[0], views[1], router.LightWeight)
	return "ensemble", logits, err
}

// cost is what an image has cost, over the heavy expert's cost.
func (m Model) cost(sawHeavy bool) float64 {
	if !sawHeavy {
		return m.Cost.Light / m.Cost.Heavy
	}
	return (m.Cost.Light + m.Cost.Heavy - m.Cost.Shared) / m.Cost.Heavy
}

func greatest(logits []float32) (best int) {
	for c, v := range logits {
		if v > logits[best] {
			best = c
		}
	}
	return best
}

// probability is the softmax of logits at a class.
func probability(logits []float32, class int) float64 {
	total, top := 0.0, float64(logits[greatest(logits)])
	for _, v := range logits {
		total += math.Exp(float64(v) - top)
	}
	return math.Exp(float64(logits[class])-top) / total
}
