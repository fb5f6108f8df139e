"""Write tests/data/excel_97.xls: a workbook as Excel 97 writes them.

pip install xlwt==1.3.0 && python tests/golden/make_excel_97.py
"""

from pathlib import Path

import xlwt


def main() -> None:
    book = xlwt.Workbook(encoding="utf-8")
    sheet = book.add_sheet("工资表")
    for row, cells in enumerate((("姓名", "天数"), ("张三", 15))):
        for column, value in enumerate(cells):
            sheet.write(row, column, value)
    book.save(Path(__file__).parents[1] / "data" / "excel_97.xls")


if __name__ == "__main__":
    main()
