package routing

// Oracle returns the point of the best possible cascade: it escalates exactly the samples that the
// light expert answers wrongly and whose escalated answer is correct. It has the greatest accuracy,
// at the least cost. It has no threshold; that of the point is 0.
//
// Errors: shape, empty, nonfinite (outcomes), value (costs).
func Oracle(o Outcomes, c Cost) (Point, error) {
	if err := o.validate(); err != nil {
		return Point{}, err
	}
	if err := c.validate(); err != nil {
		return Point{}, err
	}
	best, escalated := cut{}, o.escalatedCorrect()
	for i, light := range o.LightCorrect {
		switch {
		case light:
			best.correct++
		case escalated[i]:
			best.correct++
			best.escalated++
		}
	}
	return newPoint(best, int64(len(o.Prior)), share(o.LightCorrect), share(escalated), c), nil
}
