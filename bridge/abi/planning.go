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

// Plan solves a request, JSON of masking.Request, for a table of scores. It exports the plan and returns the report
// as JSON.
func Plan(request string, scoresArray, scoresSchema, outArray, outSchema int64) (report string, err error) {
	defer fault.Recover(&err)
	input := carrow.Take("scores", scoresArray, scoresSchema)
	defer input.Release()
	out, err := carrow.Fill(outArray, outSchema)
	if err != nil {
		return "", err
	}
	var asked masking.Request
	if err := decode(request, &asked); err != nil {
		return "", err
	}
	var scores criteria.Scores
	err = read(input, func(rec arrow.Record) (err error) {
		scores, err = arrowfile.ScoresFromRecord(rec)
		return err
	})
	if err != nil {
		return "", err
	}
	plan, summary, err := masking.Solve(scores, asked)
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
