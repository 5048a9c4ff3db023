package serving

// Experts are a cascade's two experts in memory, with what prepares their images.
type Experts interface {
	Model() Model
	// Prepare decodes and preprocesses an encoded image to [C, H, W] floats. It is called by many
	// goroutines at once.
	Prepare(encoded []byte) ([]float32, error)
	// Light returns the light expert's logits [n, K] for images [n, C, H, W].
	Light(images []float32, n int) ([]float32, error)
	// Heavy returns the heavy expert's logits [len(rows), K] for images of the last batch that
	// Light has seen: images [len(rows), C, H, W], and their rows in that batch.
	Heavy(images []float32, rows []int32) ([]float32, error)
	Close() error
}
