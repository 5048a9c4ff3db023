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
	light, escalated := o.LightCorrect, o.escalatedCorrect()
	best := cut{escalated: o.countBut(escalated, light)}
	best.correct = o.count(light) + best.escalated
	return newPoint(best, o.samples(), o.share(light), o.share(escalated), c), nil
}
