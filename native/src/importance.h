// How much each column of a model's matrices matters: the squares of what is multiplied by it, summed up.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "backend.h"

namespace quarry {

class ImportanceCollector : public MatmulObserver {
  public:
    struct Sums {
        std::size_t width = 0;
        std::vector<double> squares;        // [parts][width]
        std::vector<std::uint64_t> counts;  // [parts]: rows seen
    };

    void see(const Weight& weight, std::size_t part, const float* x, std::size_t n,
             std::size_t width) override;
    // Of each tensor seen; not while a model computes.
    const std::map<std::string, Sums>& sums() const { return sums_; }

  private:
    std::map<std::string, Sums> sums_;
};

}  // namespace quarry
