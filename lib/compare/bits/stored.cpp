#include "lib/compare/bits/stored.h"

#include <memory>

namespace moelora::packed {

Stored stored_tensor(const std::string& name, const Tensor& tensor) {
  Stored out{name, tensor.dtype(), tensor.shape(), nullptr, 0};
  if (tensor.elements() == 0) return out;
  bool plain = tensor.pieces().size() == 1;
  int64_t step = 1;
  for (size_t a = tensor.axes().size(); plain && a-- > 0; step *= tensor.axes()[a]) {
    const Piece& piece = tensor.pieces()[0];
    plain = piece.count[a] == tensor.axes()[a] && (piece.stride[a] == step || piece.count[a] == 1);
  }
  if (plain) {
    out.source = tensor.pieces()[0].source;
    out.offset = tensor.pieces()[0].offset;
  } else {
    out.source = std::make_shared<MemorySource>(tensor.dtype(), tensor.read(), name);
  }
  return out;
}

}  // namespace moelora::packed
