#include "lib/numeric/stats/value_scan.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <vector>

#include "lib/base/parallel.h"
#include "lib/io/evaluate.h"
#include "lib/io/safetensors.h"

namespace moelora {
namespace {

constexpr int64_t kReadBytes = 256 << 10;  // stays in the second-level cache
constexpr int64_t kJobBytes = 4 << 20;

// Elements [first, first + count) of tensor `item`, one run of its source.
struct Range {
  size_t item;
  int64_t first, count;
};
using Ranges = std::vector<Range>;

// The tensor's elements as one run of its source, which begins at `offset`; `file` and `begin` say
// where that run lies, where it is one of a file.
struct Straight {
  const Source* source;
  int64_t offset;
  const File* file;
  uint64_t begin;
};

std::optional<Straight> straight(const Tensor& tensor) {
  if (tensor.pieces().size() != 1) return std::nullopt;
  const Piece& piece = tensor.pieces().front();
  int64_t step = 1;
  for (size_t a = tensor.axes().size(); a-- > 0;) {
    if (piece.count[a] != tensor.axes()[a]) return std::nullopt;
    if (piece.count[a] != 1 && piece.stride[a] != step) return std::nullopt;
    step *= piece.count[a];
  }
  if (piece.source->granule() != 1) return std::nullopt;
  Straight out{piece.source.get(), piece.offset, nullptr, 0};
  if (const FileRange* range = file_range(*piece.source)) {
    out.file = range->file;
    out.begin = range->begin + static_cast<uint64_t>(piece.offset * dtype_bytes(tensor.dtype()));
  }
  return out;
}

// One pass over a list of tensors.
class Scan {
 public:
  explicit Scan(TensorList tensors)
      : tensors_(tensors), stats_(tensors.size()), straights_(tensors.size()) {}

  std::vector<ValueStats> run(int threads) {
    sort_out();
    std::vector<std::vector<ValueStats>> parts(jobs_.size());
    std::vector<std::vector<std::byte>> buffers(
        static_cast<size_t>(std::max<int64_t>(1, threads > 0 ? threads : available_threads())));
    parallel_for(static_cast<int64_t>(jobs_.size()), threads, [&](int64_t j, int worker) {
      const auto job = static_cast<size_t>(j);
      parts[job] = scan(jobs_[job], buffers[static_cast<size_t>(worker)]);
    });
    for (size_t j = 0; j < jobs_.size(); ++j)
      for (size_t i = 0; i < jobs_[j].size(); ++i)
        merge_stats(stats_[jobs_[j][i].item], parts[j][i]);
    for (const size_t item : crooked_) evaluate(item, threads);
    return std::move(stats_);
  }

 private:
  void sort_out() {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      const Tensor& tensor = *tensors_[i];
      if (!is_float(tensor.dtype())) continue;
      stats_[i].known = true;
      if (tensor.elements() == 0) continue;
      if (tensor.pieces().empty()) {
        stats_[i].elements = stats_[i].zeros = tensor.elements();
      } else if ((straights_[i] = straight(tensor))) {
        add_jobs(i);
      } else {
        crooked_.push_back(i);
      }
    }
  }

  // A large tensor becomes several jobs, small neighbours one.
  void add_jobs(size_t item) {
    const int64_t width = dtype_bytes(tensors_[item]->dtype());
    const int64_t total = tensors_[item]->elements();
    for (int64_t first = 0; first < total;) {
      if (jobs_.empty() || room_ < width) {
        jobs_.emplace_back();
        room_ = kJobBytes;
      }
      const int64_t count = std::min(total - first, room_ / width);
      jobs_.back().push_back({item, first, count});
      room_ -= count * width;
      first += count;
    }
  }

  uint64_t bytes_of(const Range& range) const {
    return static_cast<uint64_t>(range.count * dtype_bytes(tensors_[range.item]->dtype()));
  }

  std::vector<ValueStats> scan(const Ranges& job, std::vector<std::byte>& buffer) const {
    buffer.resize(static_cast<size_t>(kReadBytes));
    std::vector<ValueStats> out(job.size());
    for (size_t i = 0; i < job.size();) {
      const size_t end = end_of_neighbours(job, i);
      if (end > i + 1)
        scan_neighbours(job, i, end, buffer, out);
      else
        scan_one(job[i], buffer, out[i]);
      i = end;
    }
    return out;
  }

  // Ranges that follow each other in one file and fit into the buffer together: one read instead of
  // many small ones.
  size_t end_of_neighbours(const Ranges& job, size_t i) const {
    std::optional<Straight> run = straights_[job[i].item];
    uint64_t at = place(*run, job[i]), total = 0;
    for (; i < job.size(); ++i) {
      const Straight& next = *straights_[job[i].item];
      const uint64_t bytes = bytes_of(job[i]);
      if (next.file == nullptr || next.file != run->file || place(next, job[i]) != at) break;
      if (total + bytes > static_cast<uint64_t>(kReadBytes)) break;
      at += bytes;
      total += bytes;
    }
    return total == 0 ? i + 1 : i;
  }

  uint64_t place(const Straight& run, const Range& range) const {
    return run.begin +
           static_cast<uint64_t>(range.first * dtype_bytes(tensors_[range.item]->dtype()));
  }

  void scan_neighbours(const Ranges& job, size_t begin, size_t end, std::vector<std::byte>& buffer,
                       std::vector<ValueStats>& out) const {
    uint64_t total = 0;
    for (size_t i = begin; i < end; ++i) total += bytes_of(job[i]);
    const Straight& first = *straights_[job[begin].item];
    first.file->read(place(first, job[begin]), total, buffer.data());
    const std::byte* at = buffer.data();
    for (size_t i = begin; i < end; ++i) {
      add_values(tensors_[job[i].item]->dtype(), at, job[i].count, job[i].first, out[i]);
      at += bytes_of(job[i]);
    }
  }

  void scan_one(const Range& range, std::vector<std::byte>& buffer, ValueStats& out) const {
    const DType dtype = tensors_[range.item]->dtype();
    const Straight& run = *straights_[range.item];
    const int64_t most = kReadBytes / dtype_bytes(dtype);
    for (int64_t at = 0; at < range.count; at += most) {
      const int64_t n = std::min(most, range.count - at), first = range.first + at;
      run.source->read(run.offset + first, n, buffer.data());
      add_values(dtype, buffer.data(), n, first, out);
    }
  }

  // A view that is no straight run: rows of a transposed or joined tensor.
  void evaluate(size_t item, int threads) {
    const std::array<const Tensor*, 1> one = {tensors_[item]};
    const std::array<Place, 1> place = {};
    const DType dtype = one[0]->dtype();
    const int64_t width = dtype_bytes(dtype);
    EvaluateOptions options;
    options.threads = threads;
    options.digests = false;
    evaluate_tensors(one, place, options,
                     [&](size_t, uint64_t offset, std::span<const std::byte> bytes) {
                       add_values(dtype, bytes.data(), static_cast<int64_t>(bytes.size()) / width,
                                  static_cast<int64_t>(offset) / width, stats_[item]);
                     });
  }

  TensorList tensors_;
  std::vector<ValueStats> stats_;
  std::vector<std::optional<Straight>> straights_;
  std::vector<Ranges> jobs_;
  int64_t room_ = 0;  // bytes of the last job
  std::vector<size_t> crooked_;
};

}  // namespace

std::map<std::string, ValueStats> scan_values(const TensorMap& tensors, int threads) {
  std::vector<const Tensor*> list;
  for (const auto& entry : tensors) list.push_back(&entry.second);
  const std::vector<ValueStats> stats = Scan(list).run(threads);
  std::map<std::string, ValueStats> out;
  for (size_t i = 0; const auto& entry : tensors)
    out.emplace_hint(out.end(), entry.first, stats[i++]);
  return out;
}

Shape coordinates(const Shape& shape, int64_t index) {
  Shape out(shape.size());
  for (size_t d = shape.size(); d-- > 0;) {
    out[d] = index % shape[d];
    index /= shape[d];
  }
  return out;
}

}  // namespace moelora
