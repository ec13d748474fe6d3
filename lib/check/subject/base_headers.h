#pragma once

#include <map>
#include <memory>
#include <string>

#include "lib/model/base_model.h"
#include "lib/model/model_spec.h"

namespace moelora {

// What the weights of a base model say of its modules: names, dtypes and shapes, no values.
struct BaseHeaders {
  struct Weight {
    DType dtype;
    Shape shape;
  };
  std::map<std::string, Weight, std::less<>> weights;

  // The 2-D float weight of the module at this path, as stored: [out, in]. Null when it has none or
  // one that is packed.
  const Weight* find_linear(std::string_view module) const;
};

// Of the folder the model lies in; null where that holds no weights: `note` then says so. Throws
// MachineError, and the Error of weights that are there and cannot be read, but for the folder of a
// base that merely an adapter names: that is a note too.
std::shared_ptr<const BaseHeaders> read_base_headers(const BaseModel& base, std::string& note);

}  // namespace moelora
