#include "lib/model/mxfp4.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/model/mxfp4_decode.h"

namespace moelora {
namespace {

// Blocks decoded between two reads of the inputs: both they and the result stay in the L2 cache.
constexpr int64_t kChunk = 2048;

void read_bytes(const Source& source, int64_t first, std::vector<uint8_t>& out) {
  source.read(first, static_cast<int64_t>(out.size()), reinterpret_cast<std::byte*>(out.data()));
}

class Mxfp4Source final : public Source {
 public:
  Mxfp4Source(SourcePtr blocks, SourcePtr scales)
      : Source(DType::BF16, blocks->elements() * 2),
        blocks_(std::move(blocks)),
        scales_(std::move(scales)) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    std::vector<uint8_t> blocks, scales;
    const int64_t end = (first + count) / kMxfp4Block;
    for (int64_t block = first / kMxfp4Block; block < end; block += kChunk) {
      const int64_t n = std::min(kChunk, end - block);
      blocks.resize(static_cast<size_t>(n * kMxfp4BlockBytes));
      scales.resize(static_cast<size_t>(n));
      read_bytes(*blocks_, block * kMxfp4BlockBytes, blocks);
      read_bytes(*scales_, block, scales);
      check_scales(scales, block);
      mxfp4_decode(blocks.data(), scales.data(), n, reinterpret_cast<uint16_t*>(out));
      out += n * kMxfp4Block * 2;
    }
  }

  int64_t granule() const override { return kMxfp4Block; }
  std::string where() const override { return blocks_->where(); }
  std::string change() const override { return "decode MXFP4 to BF16 (exact)"; }

  std::vector<std::string> inputs() const override {
    std::vector<std::string> out = blocks_->inputs();
    for (std::string& name : scales_->inputs()) out.push_back(std::move(name));
    return out;
  }

 private:
  void check_scales(const std::vector<uint8_t>& scales, int64_t first) const {
    const int64_t bad = mxfp4_first_bad_scale(scales.data(), static_cast<int64_t>(scales.size()));
    if (bad < 0) return;
    const int scale = scales[static_cast<size_t>(bad)];
    throw Error(
        scales_->where(),
        fmt::format("scale {} at element {} {}, expected at most {}", scale, first + bad,
                    scale == 255 ? "stands for NaN" : "gives values beyond BF16", kMxfp4MaxScale),
        "the checkpoint is damaged: fetch this file again");
  }

  SourcePtr blocks_, scales_;
};

SourcePtr whole_source(const Tensor& tensor, const std::string& where) {
  const auto& pieces = tensor.pieces();
  if (pieces.size() == 1 && pieces[0].offset == 0 &&
      pieces[0].source->elements() == tensor.elements() &&
      tensor.same_recipe(Tensor(pieces[0].source, tensor.shape()))) {
    return pieces[0].source;
  }
  throw Error(where, "MXFP4 is decoded from whole tensors only, found a view");
}

}  // namespace

Tensor mxfp4_tensor(const Tensor& blocks, const Tensor& scales, const std::string& where) {
  Shape expected = scales.shape();
  expected.push_back(kMxfp4BlockBytes);
  if (blocks.dtype() != DType::U8 || scales.dtype() != DType::U8 || scales.rank() < 1 ||
      blocks.shape() != expected) {
    throw Error(
        where,
        fmt::format(
            "MXFP4 blocks are {} {} and scales {} {}, expected U8 [..., G, 16] and U8 [..., G]",
            dtype_name(blocks.dtype()), to_string(blocks.shape()), dtype_name(scales.dtype()),
            to_string(scales.shape())));
  }
  if (blocks.elements() == 0) throw Error(where, "MXFP4 blocks are empty");
  Shape shape = scales.shape();
  shape.back() *= kMxfp4Block;
  return Tensor(
      std::make_shared<Mxfp4Source>(whole_source(blocks, where), whole_source(scales, where)),
      shape);
}

}  // namespace moelora
