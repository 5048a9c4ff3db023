package abi

import (
	"agflow/bridge/carrow"
	"agflow/bridge/tables"
	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/planning"
)

// Criteria lists the criteria as JSON [{"name","doc","comparable","weight_gradients"}, …].
func Criteria() (list string, err error) {
	defer fault.Recover(&err)
	var descriptions []criteria.Description
	for _, name := range criteria.Names() {
		d, err := criteria.Describe(name)
		if err != nil {
			return "", err
		}
		descriptions = append(descriptions, d)
	}
	return encode[[]criteria.Description](descriptions, nil)
}

// Score makes scores of a statistics table by a named criterion and returns the number of units.
func Score(
	criterion string, seed, tableArray, tableSchema, outArray, outSchema int64,
) (units int64, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	input := c.take("statistics", tableArray, tableSchema)
	out := c.fill(outArray, outSchema)
	if c.err == nil && seed < 0 {
		c.err = fault.New(fault.Value, "the seed is %d; seeds are whole numbers from 0", seed)
	}
	table := read(&c, input, tables.StatisticsFromRecord)
	if c.err != nil {
		return 0, c.err
	}
	scores, err := criteria.Score(criterion, uint64(seed), table)
	if err != nil {
		return 0, err
	}
	return give(out, tables.ScoresToRecord(resultMemory, scores)), nil
}

// planRequest is the request of Plan: with a criterion the table is one of statistics, which the
// core scores (planning.InputOf); without one the table is one of scores, and widths are uniform.
type planRequest struct {
	planning.Request
	Criterion string `json:"criterion"`
	Seed      uint64 `json:"seed"`
}

// Plan solves a request, JSON of planning.Request with "criterion" and "seed", for a table of
// statistics or of scores and, if its addresses are not 0, a latency table. It exports the plan and
// returns the report as JSON.
func Plan(
	request string, tableArray, tableSchema, latencyArray, latencySchema, outArray, outSchema int64,
) (report string, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	table := c.take("table", tableArray, tableSchema)
	latency := c.take("latency", latencyArray, latencySchema)
	out := c.fill(outArray, outSchema)
	asked := decode(&c, request, planRequest{})
	from := planInput(&c, table, asked)
	if latencyArray != 0 || latencySchema != 0 {
		latencies := read(&c, latency, tables.LatencyFromRecord)
		from.Latency = &latencies
	}
	if c.err != nil {
		return "", c.err
	}
	plan, summary, err := planning.Solve(from, asked.Request)
	if report, err = encode[planning.Report](summary, err); err != nil {
		return "", err
	}
	rec, err := tables.PlanToRecord(resultMemory, plan)
	if err != nil {
		return "", err
	}
	give(out, rec)
	return report, nil
}

// planInput scores the statistics, or reads the scores.
func planInput(c *call, table *carrow.Input, asked planRequest) (from planning.Input) {
	if asked.Criterion == "" {
		if c.err == nil && asked.Widths != "" && asked.Widths != planning.Uniform {
			c.err = fault.New(fault.Value,
				"widths by %q need statistics and scores were given; pass the statistics, or "+
					"widths %q", asked.Widths, planning.Uniform)
		}
		from.Scores = read(c, table, tables.ScoresFromRecord)
		return from
	}
	statistics := read(c, table, tables.StatisticsFromRecord)
	if c.err == nil {
		from, c.err = planning.InputOf(statistics, asked.Criterion, asked.Widths, asked.Seed)
	}
	return from
}

// Diff compares two plans of the same layers and returns JSON of planning.Difference.
func Diff(aArray, aSchema, bArray, bSchema int64) (difference string, err error) {
	defer fault.Recover(&err)
	var c call
	defer c.release()
	aInput := c.take("the first plan", aArray, aSchema)
	bInput := c.take("the second plan", bArray, bSchema)
	a, b := read(&c, aInput, tables.PlanFromRecord), read(&c, bInput, tables.PlanFromRecord)
	if c.err != nil {
		return "", c.err
	}
	return encode[planning.Difference](planning.Diff(a, b))
}
