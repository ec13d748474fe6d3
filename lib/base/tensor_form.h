#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "lib/base/recipe.h"
#include "lib/base/tensor.h"

namespace moelora {

// What a tensor's recipe makes of its dims.
struct TensorDraft {
  DType dtype = DType::F32;
  Shape shape;
  TensorRecipe recipe;
  std::vector<int> axes_of_dim;  // how many axes each dim has; at least one

  static TensorDraft zeros(DType dtype, const Shape& shape) {
    return {dtype, shape, {shape, {}}, std::vector<int>(shape.size(), 1)};
  }

  // Dim d is the axes [axis_begin(d), axis_begin(d + 1)).
  size_t axis_begin(int d) const {
    return static_cast<size_t>(std::accumulate(axes_of_dim.begin(), axes_of_dim.begin() + d, 0));
  }

  void make_single_axis(int d) {
    int& axes = axes_of_dim[static_cast<size_t>(d)];
    for (; axes > 1; --axes) recipe.merge(axis_begin(d) + static_cast<size_t>(axes) - 2);
  }

  void make_zero_if_empty() {
    if (std::find(shape.begin(), shape.end(), 0) != shape.end()) recipe.pieces.clear();
  }
};

// What copies of a tensor share.
struct TensorForm {
  TensorForm(DType of, Shape extents, SourcePtr source = nullptr)
      : dtype(of), shape(std::move(extents)), whole(std::move(source)) {}
  explicit TensorForm(TensorDraft&& draft)
      : dtype(draft.dtype), shape(draft.shape), parts_(new TensorDraft(std::move(draft))) {}
  TensorForm(const TensorForm&) = delete;
  TensorForm& operator=(const TensorForm&) = delete;
  ~TensorForm() { delete parts_.load(); }

  // Made when it is first asked for, by any thread.
  const TensorDraft& parts() const {
    const TensorDraft* known = parts_.load(std::memory_order_acquire);
    if (known != nullptr) return *known;
    auto made = std::make_unique<TensorDraft>(TensorDraft::zeros(dtype, shape));
    if (whole != nullptr)
      made->recipe.pieces.push_back(
          {whole, 0, std::vector<int64_t>(shape.size(), 0), shape, row_major_steps(shape)});
    if (!parts_.compare_exchange_strong(known, made.get())) return *known;
    return *made.release();
  }

  const DType dtype;
  const Shape shape;
  const SourcePtr whole;  // the tensor is this source, element for element; null: see parts()

 private:
  mutable std::atomic<const TensorDraft*> parts_ = nullptr;  // null of zeros too
};

}  // namespace moelora
