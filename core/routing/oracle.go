package routing

// Oracle is the cascade that no router beats: the samples escalate that the light expert gets wrong and escalating puts
// right, and no others. It is the most accurate one, and the cheapest of those. No threshold does this; that of the point is 0.
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
