package abi

import (
	"agflow/bridge/arrowfile"
	"agflow/bridge/carrow"
	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/planning"

	"github.com/apache/arrow/go/v15/arrow"
)

// Criteria lists the criteria as JSON [{"name","doc","comparable"}, …].
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
	return encode(descriptions)
}

// Score makes scores of a statistics table by a named criterion and returns the number of units.
func Score(criterion string, seed, tableArray, tableSchema, outArray, outSchema int64) (units int64, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("statistics", tableArray, tableSchema)
	defer input.Release()
	out, err := carrow.Fill(outArray, outSchema)
	if err != nil {
		return 0, err
	}
	if seed < 0 {
		return 0, fault.New(fault.Value, "the seed is %d; seeds are whole numbers from 0", seed)
	}
	table, err := readTable(input)
	if err != nil {
		return 0, err
	}
	scores, err := criteria.Score(criterion, uint64(seed), table)
	if err != nil {
		return 0, err
	}
	return give(out, arrowfile.ScoresToRecord(resultMemory, scores)), nil
}

// planRequest is what Plan is asked: with a criterion the table is one of statistics, which the core scores by it and by
// the criterion of Widths, if any; without one the table is one of scores, and widths are uniform.
type planRequest struct {
	planning.Request
	Criterion string `json:"criterion"`
	Seed      uint64 `json:"seed"`
}

// Plan solves a request, JSON of planning.Request with "criterion" and "seed", for a table of statistics or of scores and, if its
// addresses are not 0, a latency table. It exports the plan and returns the report as JSON.
func Plan(request string, tableArray, tableSchema, latencyArray, latencySchema, outArray, outSchema int64) (report string, err error) {
	defer fault.Recover(&err)
	input, latencies := carrow.Take("table", tableArray, tableSchema), carrow.Take("latency", latencyArray, latencySchema)
	defer latencies.Release()
	defer input.Release()
	out, err := carrow.Fill(outArray, outSchema)
	if err != nil {
		return "", err
	}
	var asked planRequest
	if err := decode(request, &asked); err != nil {
		return "", err
	}
	from, err := planInput(input, asked)
	if err != nil {
		return "", err
	}
	if latencyArray != 0 || latencySchema != 0 {
		if from.Latency, err = readLatencies(latencies); err != nil {
			return "", err
		}
	}
	plan, summary, err := planning.Solve(from, asked.Request)
	if err != nil {
		return "", err
	}
	if report, err = encode(summary); err != nil {
		return "", err
	}
	rec, err := arrowfile.PlanToRecord(resultMemory, plan)
	if err != nil {
		return "", err
	}
	give(out, rec)
	return report, nil
}

// planInput scores the statistics, or reads the scores.
func planInput(input *carrow.Input, asked planRequest) (from planning.Input, err error) {
	uniform := asked.Widths == "" || asked.Widths == planning.Uniform
	if asked.Criterion == "" {
		if !uniform {
			return from, fault.New(fault.Value, "widths by %q need statistics and scores were given; pass the statistics, or widths %q", asked.Widths, planning.Uniform)
		}
		err = read(input, func(rec arrow.Record) (err error) {
			from.Scores, err = arrowfile.ScoresFromRecord(rec)
			return err
		})
		return from, err
	}
	table, err := readTable(input)
	if err != nil {
		return from, err
	}
	if from.Scores, err = criteria.Score(asked.Criterion, asked.Seed, table); err != nil || uniform {
		return from, err
	}
	widths, err := criteria.Score(asked.Widths, asked.Seed, table)
	from.Widths = &widths
	return from, err
}

func readLatencies(input *carrow.Input) (*planning.LatencyTable, error) {
	var table planning.LatencyTable
	err := read(input, func(rec arrow.Record) (err error) {
		table, err = arrowfile.LatencyFromRecord(rec)
		return err
	})
	return &table, err
}

// Diff compares two plans of the same layers and returns JSON of planning.Difference.
func Diff(aArray, aSchema, bArray, bSchema int64) (difference string, err error) {
	defer fault.Recover(&err)
	inputs := []*carrow.Input{carrow.Take("the first plan", aArray, aSchema), carrow.Take("the second plan", bArray, bSchema)}
	defer inputs[1].Release()
	defer inputs[0].Release()
	plans := make([]planning.Plan, len(inputs))
	for i, input := range inputs {
		err := read(input, func(rec arrow.Record) (err error) {
			plans[i], err = arrowfile.PlanFromRecord(rec)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	found, err := planning.Diff(plans[0], plans[1])
	if err != nil {
		return "", err
	}
	return encode(found)
}
