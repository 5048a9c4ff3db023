package monitor

// waiting is an audited image whose label has not come.
type waiting struct {
	id            string
	answer, heavy int
	weight        float64
}

// mostAwaited is the number of labels that are awaited at a time. A further one takes the place of
// the oldest.
const mostAwaited = 4096

// awaited keeps the images that await their labels, in the order in which they came.
type awaited struct {
	byID    map[string]int64 // to the number of the image
	images  map[int64]waiting
	oldest  int64
	next    int64
	dropped int64
}

func newAwaited() *awaited {
	return &awaited{byID: map[string]int64{}, images: map[int64]waiting{}}
}

func (a *awaited) add(image waiting) {
	if before, twice := a.byID[image.id]; twice {
		delete(a.images, before)
		a.dropped++
	}
	a.byID[image.id], a.images[a.next] = a.next, image
	a.next++
	for a.oldest < a.next {
		old, waits := a.images[a.oldest]
		if waits && len(a.images) <= mostAwaited {
			return
		}
		if waits {
			delete(a.byID, old.id)
			delete(a.images, a.oldest)
			a.dropped++
		}
		a.oldest++
	}
}

func (a *awaited) take(id string) (image waiting, found bool) {
	number, found := a.byID[id]
	if !found {
		return waiting{}, false
	}
	image = a.images[number]
	delete(a.byID, id)
	delete(a.images, number)
	return image, true
}

// inOrder returns the images from the oldest on.
func (a *awaited) inOrder() (images []waiting) {
	for number := a.oldest; number < a.next; number++ {
		if image, waits := a.images[number]; waits {
			images = append(images, image)
		}
	}
	return images
}
