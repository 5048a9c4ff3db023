package abi

import (
	"agflow/bridge/arrowfile"
	"agflow/bridge/carrow"
	"agflow/core/criteria"
	"agflow/core/fault"
	"agflow/core/masking"

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
	masking.Request
	Criterion string `json:"criterion"`
	Seed      uint64 `json:"seed"`
}

// Plan solves a request, JSON of masking.Request with "criterion" and "seed", for a table of statistics or of scores. It
// exports the plan and returns the report as JSON.
func Plan(request string, tableArray, tableSchema, outArray, outSchema int64) (report string, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("table", tableArray, tableSchema)
	defer input.Release()
	out, err := carrow.Fill(outArray, outSchema)
	if err != nil {
		return "", err
	}
	var asked planRequest
	if err := decode(request, &asked); err != nil {
		return "", err
	}
	plan, summary, err := solve(input, asked)
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

func solve(input *carrow.Input, asked planRequest) (masking.Plan, masking.Report, error) {
	if asked.Criterion == "" {
		return solveScores(input, asked.Request)
	}
	table, err := readTable(input)
	if err != nil {
		return masking.Plan{}, masking.Report{}, err
	}
	scores, err := criteria.Score(asked.Criterion, asked.Seed, table)
	if err != nil {
		return masking.Plan{}, masking.Report{}, err
	}
	if uniform(asked.Widths) {
		return masking.Solve(scores, asked.Request)
	}
	widths, err := criteria.Score(asked.Widths, asked.Seed, table)
	if err != nil {
		return masking.Plan{}, masking.Report{}, err
	}
	return masking.SolveWidths(scores, widths, asked.Request)
}

func solveScores(input *carrow.Input, asked masking.Request) (masking.Plan, masking.Report, error) {
	if !uniform(asked.Widths) {
		return masking.Plan{}, masking.Report{}, fault.New(fault.Value, "widths by %q need statistics and scores were given; pass the statistics, or widths %q", asked.Widths, masking.Uniform)
	}
	var scores criteria.Scores
	err := read(input, func(rec arrow.Record) (err error) {
		scores, err = arrowfile.ScoresFromRecord(rec)
		return err
	})
	if err != nil {
		return masking.Plan{}, masking.Report{}, err
	}
	return masking.Solve(scores, asked)
}

func uniform(widths string) bool { return widths == "" || widths == masking.Uniform }
