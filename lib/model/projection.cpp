#include "lib/model/projection.h"

namespace moelora {

std::string_view projection_name(Projection projection) {
  switch (projection) {
    case Projection::gate:
      return "gate_proj";
    case Projection::up:
      return "up_proj";
    case Projection::gate_up:
      return "gate_up_proj";
    case Projection::down:
      return "down_proj";
  }
  return "";
}

}  // namespace moelora
