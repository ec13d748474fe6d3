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

// Of the folder the model lies in; null where that holds no weights, or weights that cannot be
// read: `note` then says so. Throws MachineError, and CannotOpen where it
// is not merely one that an adapter names.
std::shared_ptr<const BaseHeaders> read_base_headers(const BaseModel& base, std::string& note);

}  // namespace moelora
