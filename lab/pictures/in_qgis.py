"""Show layers in QGIS, and write a picture of its window. QGIS runs this file."""

import os
import traceback
from collections.abc import Callable
from pathlib import Path

from qgis.core import (
    QgsAttributeTableConfig,
    QgsFillSymbol,
    QgsPalLayerSettings,
    QgsProject,
    QgsRasterLayer,
    QgsReferencedRectangle,
    QgsSettings,
    QgsTextBufferSettings,
    QgsTextFormat,
    QgsVectorLayer,
    QgsVectorLayerSimpleLabeling,
)
from qgis.PyQt.QtCore import Qt, QTimer
from qgis.PyQt.QtGui import QFont
from qgis.PyQt.QtWidgets import QDockWidget, QMainWindow
from qgis.utils import iface

CATALOG = "/vsis3/cogs/catalog"
COLUMNS = {"name": 150, "start": 170, "end": 170, "bytes": 80, "location": 300}
# QGIS sets up its window and a new project in the first moment, and then needs time
# for the images to arrive, in milliseconds.
MOMENT = 3_000
PATIENCE = 30_000


def show_vrt() -> QgsRasterLayer:
    """Show the mosaics of two collections, one above the other."""
    maps = add_mosaic("maps--1954")
    add_mosaic("aerial--1937")
    return maps


def show_tile_index() -> QgsRasterLayer:
    """Show the outlines and names of the sheets above their mosaic, and the table."""
    maps = add_mosaic("maps--1954")
    maps.setOpacity(0.6)
    index = QgsVectorLayer(f"{CATALOG}/maps--1954/tileindex.fgb", "tileindex.fgb")
    outline = {"color": "0,0,0,0", "outline_color": "#c00000", "outline_width": "0.6"}
    index.renderer().setSymbol(QgsFillSymbol.createSimple(outline))
    label(index, "replace(\"name\", '.tif', '')")
    choose_columns(index)
    QgsProject.instance().addMapLayer(index)
    iface.showAttributeTable(index)
    return maps


def add_mosaic(collection: str) -> QgsRasterLayer:
    layer = QgsRasterLayer(f"{CATALOG}/{collection}/mosaic.vrt", f"{collection} (VRT)")
    if not layer.isValid():
        raise RuntimeError(f"QGIS cannot open {layer.source()}")
    QgsProject.instance().addMapLayer(layer)
    return layer


def label(layer: QgsVectorLayer, expression: str) -> None:
    text = QgsTextFormat()
    text.setFont(QFont("DejaVu Sans", weight=QFont.Bold))
    text.setSize(7.5)
    halo = QgsTextBufferSettings()
    halo.setEnabled(True)
    text.setBuffer(halo)
    settings = QgsPalLayerSettings()
    settings.fieldName = expression
    settings.isExpression = True
    settings.placement = QgsPalLayerSettings.OverPoint
    settings.centroidInside = True
    settings.displayAll = True
    settings.setFormat(text)
    layer.setLabeling(QgsVectorLayerSimpleLabeling(settings))
    layer.setLabelsEnabled(True)


def choose_columns(layer: QgsVectorLayer) -> None:
    """Let the table of a layer show only some columns, in this order."""
    table = QgsAttributeTableConfig()
    table.update(layer.fields())
    order = [*COLUMNS, *(f.name() for f in layer.fields() if f.name() not in COLUMNS)]
    columns = sorted(
        table.columns(), key=lambda column: order.index(column.name or order[-1])
    )
    for column in columns:
        column.hidden = column.name not in COLUMNS
        column.width = COLUMNS.get(column.name, -1)
    table.setColumns(columns)
    table.setSortExpression('"name"')
    layer.setAttributeTableConfig(table)


def tidy(window: QMainWindow) -> None:
    """Leave only the panel of layers, and the table if there is one."""
    for dock in window.findChildren(QDockWidget):
        if dock.objectName() == "Browser":
            dock.hide()
        elif dock.objectName() == "Layers":
            window.resizeDocks([dock], [210], Qt.Horizontal)
        elif dock.windowTitle().startswith("tileindex"):
            window.resizeDocks([dock], [200], Qt.Vertical)
    iface.messageBar().clearWidgets()


def zoom(layer: QgsRasterLayer) -> None:
    canvas = iface.mapCanvas()
    QgsProject.instance().setCrs(layer.crs())
    canvas.setReferencedExtent(QgsReferencedRectangle(layer.extent(), layer.crs()))
    canvas.zoomByFactor(1.04)


def prepare() -> None:
    shows = {"vrt": show_vrt, "tileindex": show_tile_index}
    layer = shows[Path(os.environ["PICTURE"]).stem]()
    iface.mainWindow().setWindowState(Qt.WindowNoState)
    iface.mainWindow().resize(1150, 860)

    def arrange() -> None:
        tidy(iface.mainWindow())
        zoom(layer)

    QTimer.singleShot(MOMENT, or_end(arrange))
    QTimer.singleShot(PATIENCE, or_end(finish))


def finish() -> None:
    iface.messageBar().clearWidgets()
    iface.mainWindow().grab().save(os.environ["PICTURE"])
    # QGIS would ask whether to save the project.
    os._exit(0)


def or_end(step: Callable[[], None]) -> Callable[[], None]:
    """Return a step that ends QGIS if it fails: QGIS would show why, and wait."""

    def run() -> None:
        try:
            step()
        except Exception:
            traceback.print_exc()
            os._exit(1)

    return run


QgsSettings().setValue("qgis/dockAttributeTable", True)
QTimer.singleShot(MOMENT, or_end(prepare))
