#pragma once

#include <memory>

#include "kernels/layer.h"

namespace moelora::kernels {

// A batch of tokens on the card, ready to run through its layer. fast.cpp and naive.cu are the two
// kinds.
struct Batch {
  explicit Batch(Layer& owner) : layer(owner) {}
  virtual ~Batch();
  Batch(const Batch&) = delete;
  Batch& operator=(const Batch&) = delete;

  // Puts the whole work on lane 0's stream (forking to other lanes and back).
  virtual void enqueue() = 0;
  // Rows by pair, on the host.
  virtual void read(Stage stage, Projection projection, float* out) = 0;

  // Once enqueue()d, records the work; launch() replays it from then on.
  void record();
  void launch();

  Layer& layer;

 private:
  cudaGraphExec_t graph_ = nullptr;
};

void check_input(const BatchInput& input);

std::unique_ptr<Batch> make_fast_batch(Layer& layer, const BatchInput& input, const Plan& plan);
std::unique_ptr<Batch> make_naive_batch(Layer& layer, const BatchInput& input);

}  // namespace moelora::kernels
