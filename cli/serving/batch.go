package serving

import (
	"math"
	"time"

	"agflow/core/routing"
	"agflow/core/routing/monitor"
	"agflow/core/tensor"
)

// passed is what the experts made of a batch.
type passed struct {
	Pass
	answers []Answer
	seen    []monitor.Image
}

// batch is a batch between the light expert and its answers.
type batch struct {
	light   tensor.View
	decided routing.Decisions // by the calibrated router
	drawn   []monitor.Draw
	rows    []int32           // of the images that the heavy expert sees
	heavy   map[int][]float32 // its logits for them
}

// pass sends images [n, C, H, W] through the light expert, and those that escalate or are audited
// through the heavy one.
func (g *generation) pass(images []float32, n int) (p passed, err error) {
	begin := time.Now()
	logits, err := g.experts.Light(images, n)
	if err != nil {
		return passed{}, err
	}
	p.Light = time.Since(begin)
	var b batch
	if b.light, err = tensor.NewView(logits, n, g.model.Classes); err != nil {
		return passed{}, err
	}
	if b.decided, err = g.model.Router.Decide(b.light); err != nil {
		return passed{}, err
	}
	all := g.escalatesAll()
	b.rows, b.drawn = g.chosen(b.decided, all)
	begin = time.Now()
	if b.heavy, err = g.askHeavy(images, b.rows); err != nil {
		return passed{}, err
	}
	p.Heavy = time.Since(begin)
	return p, g.read(&p, b, all)
}

// chosen returns the rows of the images that the heavy expert is to see, and what the watch draws
// for its audit.
func (g *generation) chosen(
	decided routing.Decisions, all bool,
) (rows []int32, drawn []monitor.Draw) {
	drawn = make([]monitor.Draw, len(decided.Prior))
	for i, escalates := range decided.Escalate {
		switch {
		case all:
			drawn[i] = monitor.Everything
		case g.watch != nil:
			drawn[i] = g.watch.Audit(decided.Prior[i], escalates)
		}
		if escalates || drawn[i].Audited {
			rows = append(rows, int32(i))
		}
	}
	return rows, drawn
}

// askHeavy returns the heavy expert's logits by the row.
func (g *generation) askHeavy(images []float32, rows []int32) (map[int][]float32, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	size, k := g.model.size(), g.model.Classes
	compacted := make([]float32, 0, len(rows)*size)
	for _, row := range rows {
		compacted = append(compacted, images[int(row)*size:(int(row)+1)*size]...)
	}
	logits, err := g.experts.Heavy(compacted, rows)
	if err != nil {
		return nil, err
	}
	byRow := map[int][]float32{}
	for at, row := range rows {
		byRow[int(row)] = logits[at*k : (at+1)*k]
	}
	return byRow, nil
}

// read makes the answers of a batch; where all images escalate, what the watch sees is still what
// the calibrated router decided.
func (g *generation) read(p *passed, b batch, all bool) error {
	router := g.model.Router
	calibrated, err := b.answered(router, false)
	if err != nil {
		return err
	}
	answered := calibrated
	if all {
		router.Threshold.Threshold = routing.EscalateAll
		if answered, err = b.answered(router, true); err != nil {
			return err
		}
	}
	lightLogits, _ := tensor.Elements[float32](b.light)
	k := g.model.Classes
	for i, class := range answered.Prediction {
		a := Answer{
			ID: g.ids.next(), Class: int(class), Prior: answered.Prior[i], Expert: "light",
			Logits: lightLogits[i*k : (i+1)*k], Cost: g.model.cost(b.heavy[i] != nil),
		}
		a.Audited = b.drawn[i].Audited && !answered.Escalate[i]
		if answered.Escalate[i] {
			p.Escalated++
			if a.Expert, a.Logits, err = finalLogits(router, a.Logits, b.heavy[i]); err != nil {
				return err
			}
		} else if a.Audited {
			p.Audited++
		}
		a.Probability = probability(a.Logits, a.Class)
		p.answers = append(p.answers, a)
		p.seen = append(p.seen, b.image(i, a.ID, int(calibrated.Prediction[i])))
	}
	return nil
}

// answered returns a router's decisions and answers. The images escalate that were decided to, or
// all of them.
func (b batch) answered(router routing.Router, all bool) (routing.Decisions, error) {
	var escalated []float32
	for i, escalates := range b.decided.Escalate {
		if escalates || all {
			escalated = append(escalated, b.heavy[i]...)
		}
	}
	k := b.light.Channels()
	heavy, err := tensor.NewView(escalated, len(escalated)/k, k)
	if err != nil {
		return routing.Decisions{}, err
	}
	return router.Answer(b.light, heavy)
}

// image is what the watch sees of an image that the calibrated router answers with a class.
func (b batch) image(i int, id string, class int) monitor.Image {
	image := monitor.Image{
		ID: id, Time: time.Now().UTC().Format(time.RFC3339Nano), Prior: b.decided.Prior[i],
		Escalated: b.decided.Escalate[i], Draw: b.drawn[i], Answer: class,
	}
	if logits := b.heavy[i]; logits != nil {
		heavy := greatest(logits)
		image.Heavy = &heavy
	}
	return image
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
